"""Segment whole videos without labels, then score them where there is an annotation (docs/method.md, sections 4 to 6).

python eval.py                                                            # embedded backbone on generated videos
python eval.py --davis_path DAVIS --dino_path dino_deitsmall8_pretrain.pth --resume_path outputs/run/last.pt
python eval.py --davis_path DAVIS --dino_path dino_deitsmall8_pretrain.pth --training_free --protocol both
python eval.py --dataset video --basepath clip.mp4 --dino_path dino_deitsmall8_pretrain.pth --training_free
python eval.py --dataset fbms59 --basepath FBMS --predictions PNGS        # score anybody's label PNGs
torchrun --nproc_per_node 8 eval.py ...                                   # videos are shared out over processes
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import exit_on_interrupt

    exit_on_interrupt()

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import utils  # noqa: F401  before torch, which reads how threads are to work when it is loaded

# isort: split
import numpy as np
import torch
from tqdm import tqdm

from data.headers import check_sizes
from data.loading import check_root, guess_own_video, load_videos, resolve_root
from data.registry import DATASET_NAMES, DATASETS, OWN_VIDEO, parse_dataset_name
from data.resolution import ResolutionRule
from data.videos import Video, compute_display_shape, read_resized_frames
from model.engine.threshold import CLUSTERS
from model.engine.windows import ENGINES
from model.network import SpatioTemporalNetwork, build_network, check_origin, holds_encoder
from model.objects.ranking import by_objectness, by_size, choose, describe
from model.objects.upsampling import UPSAMPLING, at_pixels
from model.segmenter import CLUSTERINGS, MAX_KEY_FRAMES, Progress, Segmenter, SegmenterSettings, key_frame_indices
from model.weights import checkpoint_path
from utils import distributed
from utils.clock import Clock
from utils.config import (
    AUTO,
    Parser,
    add_network_arguments,
    check_resolution,
    choose_temperature,
    offer_embedded,
    positive_float,
    positive_int,
    threshold,
)
from utils.device import choose_device, peak_memory_gb
from utils.errors import UserError, run_main
from utils.files import lock_folder
from utils.png import read_label_png
from utils.progress import FrameBar, report_progress
from utils.report import format_costs
from utils.results import CONTACT_SHEET, OVERLAYS, ResultsFolder, write_archive
from utils.run.checkpoints import hash_file, load_checkpoint
from utils.run.provenance import list_versions
from utils.scoring.label_checks import check_labels
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.score import add_score_options, expand_protocol_names, read_provenance, read_score_options, score
from utils.scoring.tables import (
    Scores,
    choose_scores_folder,
    note_id_gaps,
    print_side_by_side,
    print_table,
    write_scores,
)
from utils.video import write_video
from utils.visual import draw_contact_sheet, draw_overlay, write_picture

# What `find_objects` does to clusters, by the words of --proposals; objects: all of it, clusters: nothing.
PIECES = {"outlines": "outlines", "merged": "merge", "split": "split"}
# What a command that does the same with the embedded backbone has to repeat.
KEPT_OPTIONS = (
    "dataset", "split", "davis_path", "basepath", "annotations", "sequences", "videos", "protocol", "save_path",
)  # fmt: skip


def make_parser() -> Parser:
    parser = Parser(
        program="eval", description="Segment whole videos without labels and score them.",
        alternatives=(("resume_path", "training_free"),), idle=(("temperature", "resume_path"),),
    )  # fmt: skip
    data = parser.add_argument_group("data").add_argument
    data(
        "--dataset", default="davis17u", type=parse_dataset_name, choices=DATASET_NAMES,
        help="video: anybody's own, without annotation; meant where --basepath is one and this is not given",
    )  # fmt: skip
    data("--davis_path", help="root of DAVIS")
    data("--basepath", help="root of any other dataset; for --dataset video a video file or folder of frames")
    data("--split", help="which split of the dataset; if not given, the one that is scored")
    data("--videos", metavar="A:B", help="only videos A to B - 1 of the split, counted from 0, such as 600:900")
    data("--sequences", nargs="+", help="only these")
    data("--annotations", type=Path, help="for --dataset pairs: the folder of label PNGs; --basepath is that of frames")
    data("--allow_damaged", action="store_true", help="segment what can be decoded of a damaged video file")
    data(
        "--resolution", type=positive_int, nargs=2, default=(320, 480), metavar=("H", "W"),
        help="of all videos; if not given, or by a recipe alone, a number of pixels: each video of --dataset video, "
        "and others of quite another shape, keep their shape",
    )  # fmt: skip
    add_network_arguments(parser)
    method = parser.add_argument_group("method").add_argument
    method(
        "--resume_path",
        help="checkpoint of the trained block, of train.py or of the reference; embedded: the one in assets/",
    )
    method(
        "--training_free",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="no trained block: q = k = s LayerNorm(features), s = --temperature",
    )
    method("--ratio", type=positive_int, default=10, help="every how many frames one gives attention keys (R)")
    method(
        "--tau", type=threshold, default=1.0,
        help="distance threshold of the clustering; auto: the one that training stored in the checkpoint",
    )  # fmt: skip
    method("--max_key_frames", type=positive_int, default=MAX_KEY_FRAMES, help="at most so many, spread evenly")
    method(
        "--clustering", choices=CLUSTERINGS, default="exact",
        help="fast: other masks, much sooner; plain: the formulas of the paper as they stand, slowly",
    )  # fmt: skip
    method(
        "--memory_gb", type=positive_float, default=8.0, help="for features, attention, clustering and objects together"
    )
    method("--frame_batch", type=positive_int, default=4, help="frames per forward pass of the backbone")
    method(
        "--proposals", nargs="+", choices=("objects", *PIECES, "clusters"), default=["objects"],
        help="objects: clusters that are but outlines go to what is around them (outlines), those that look alike "
        "and touch are one (merged), pieces that live apart are two (split), ranked by objectness; or only one or two "
        "of the three; clusters: each by itself, ranked by size, as the reference",
    )  # fmt: skip
    method(
        "--clusters", type=cluster_bound, nargs="+", metavar="N",
        help="the least and the most of a video: where there are not so many at --tau, another tau is chosen for it; "
        f"any: --tau is kept. If not given, {' '.join(map(str, CLUSTERS))}, or any for --proposals clusters",
    )  # fmt: skip
    method("--max_objects", type=positive_int, metavar="N", help="keep the N best proposals of each video")
    method(
        "--upsampling", choices=tuple(UPSAMPLING), default="guided",
        help="tokens to pixels: guided by the frame's colours, or nearest, in blocks, as the reference",
    )  # fmt: skip
    method("--feature_cache", type=Path, help="folder where the backbone's features are kept for later runs")
    output = parser.add_argument_group("output").add_argument
    output("--save_path", default="outputs/eval", help="where results go; with --predictions, where their scores do")
    output("--overwrite", action="store_true", help="replace results of other settings in --save_path")
    output(
        "--protocol",
        nargs="+",
        choices=(*PROTOCOLS, "both", "all"),
        help="; ".join(f"{name}: {protocol.meaning}" for name, protocol in PROTOCOLS.items())
        + "; both: davis and paper; all: those of the dataset; if not given, its first",
    )
    add_score_options(output)
    output("--predictions", help="score the label PNGs of this folder, <video>/<frame>.png; nothing is segmented")
    output("--overlay", action=argparse.BooleanOptionalAction, help="an overlay .mp4 per video; on for --dataset video")
    output("--workers", type=positive_int, help="processes for scoring; all cores if not given")
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse(sys.argv[1:])
    if not parser.given & {"dataset", "annotations"} and args.davis_path is None:
        args.dataset = guess_own_video(args.basepath, otherwise=args.dataset)
    args.fit_resolution = "resolution" not in parser.given
    args.split = args.split or DATASETS[args.dataset].default_split
    args.proposals = one_word(args.proposals)
    args.temperature = args.temperature or choose_temperature(args.backbone, args.dataset)
    args.clusters = cluster_range(args)
    protocols = args.protocol = choose_protocols(args)
    root, flag = resolve_root(args.dataset, davis_path=args.davis_path, basepath=args.basepath)
    check_root(args.dataset, root, split=args.split, flag=flag)
    if args.predictions:
        score_predictions(args, protocols, told="save_path" in parser.given)
        return
    args.resume_path = checkpoint_path(args.resume_path)
    device = choose_device(args.device)
    with offer_embedded("start_eval.sh", args, KEPT_OPTIONS):
        network = make_network(args).to(device)
    check_resolution(args.resolution, network.backbone.patch_size)
    kinds = list(dict.fromkeys(PROTOCOLS[name].predictions for name in protocols))
    settings = settings_of(args, network, kinds)
    origin = {"config": args.config, "checkpoint": args.resume_path, "versions": list_versions()}
    results = ResultsFolder(Path(args.save_path), kinds=kinds, settings=settings, origin=origin)
    results.check(overwrite=args.overwrite)
    videos = find_videos(args)  # only now: it may generate them, or decode a long one
    check_sizes(videos)  # what could not be scored is refused before anything is segmented
    take_labels(videos, protocols)
    with ExitStack() as stack:
        distributed.start()
        stack.callback(distributed.stop)
        if distributed.is_main():
            stack.enter_context(lock_folder(results.path, flag="--save_path"))
            results.prepare(overwrite=args.overwrite)
            say_limited(args, videos)
        distributed.barrier()
        predict(args, network, videos, results)
        distributed.barrier()
        report(args, videos, results, protocols)


def take_labels(videos: list[Video], protocols: list[str]) -> None:
    """Refuse annotations by which nothing could be scored; give videos those that `protocols` are scored by."""
    annotated = {video.name: video for video in videos if video.annotations is not None}
    truth = {name: video.annotations for name, video in annotated.items()}
    for name, annotations in check_labels(truth, protocols).items():
        annotated[name].annotations = annotations


def choose_protocols(args: argparse.Namespace) -> list[str]:
    """The protocols asked for, or the data set's usual one.

    Raises:
        UserError: one that the data set is not scored by. Of one merged object, for one, `davis` would choose the best
            cluster with the ground truth.
    """
    known = DATASETS[args.dataset].protocols
    # A video of one's own has no protocol: the usual proposals.
    chosen = expand_protocol_names(args.protocol or known[:1], known) or ["davis"]
    if unfit := [name for name in chosen if known and name not in known]:
        raise UserError(f"--protocol {unfit[0]}: --dataset {args.dataset} is scored by {', '.join(known)}")
    return chosen


def cluster_bound(text: str) -> int | str:
    return text if text == "any" else positive_int(text)


def cluster_range(args: argparse.Namespace) -> tuple[int, int] | None:
    """How many clusters of a video --clusters wants, at least and at most; None: any.

    Raises:
        UserError: it is neither two numbers, the lower first, nor the one word.
    """
    if args.clusters is None:
        return None if args.proposals == "clusters" else CLUSTERS
    if args.clusters == ["any"]:
        return None
    if len(args.clusters) != 2 or "any" in args.clusters or args.clusters[0] > args.clusters[1]:
        given = " ".join(map(str, args.clusters))
        raise UserError(f"--clusters {given}: give two numbers, the lower one first, or any")
    return tuple(args.clusters)


def one_word(proposals: list[str]) -> str:
    """What --proposals asks for in one way alone, so that the same masks have the same settings.

    Raises:
        UserError: `objects` or `clusters` beside another word.
    """
    if len(set(proposals)) > 1 and (whole := {"objects", "clusters"} & set(proposals)):
        raise UserError(f"--proposals {' '.join(proposals)}: {min(whole)} stands by itself")
    chosen = [word for word in PIECES if word in proposals]
    return "objects" if len(chosen) == len(PIECES) else " ".join(chosen) or proposals[0]


def object_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """What is made of clusters, as options of `find_objects`; None for nothing."""
    if args.proposals == "clusters":
        return None
    chosen = PIECES if args.proposals == "objects" else args.proposals.split()
    return {option: word in chosen for word, option in PIECES.items()}


def say_limited(args: argparse.Namespace, videos: list[Video]) -> None:
    """Say where --max_key_frames takes effect, so that nobody takes --ratio for the distance of the key frames."""
    counts = {video.name: len(key_frame_indices(len(video.frame_names), args.ratio)) for video in videos}
    limited = [name for name, count in counts.items() if count > args.max_key_frames]
    if limited:
        effect = f"limits {len(limited)} of {len(videos)} videos, such as {limited[0]}"
        at_ratio = f"{counts[limited[0]]} at --ratio {args.ratio}"
        print(
            f"--max_key_frames {args.max_key_frames}: {effect}, to so many key frames, spread evenly ({at_ratio})",
            file=sys.stderr,
            flush=True,
        )


def predict(
    args: argparse.Namespace, network: SpatioTemporalNetwork, videos: list[Video], results: ResultsFolder
) -> None:
    """Write the label PNGs of every video that is not done yet; longest first, shared out over processes."""
    settings = SegmenterSettings(
        key_stride=args.ratio,
        max_key_frames=args.max_key_frames,
        tau=args.tau,
        clustering=args.clustering,
        memory_gb=args.memory_gb,
        frame_batch=args.frame_batch,
        amp=args.amp,
        spill_path=results.path,
        feature_cache=args.feature_cache,
        objects=object_options(args),
        clusters=args.clusters,
    )
    segmenter = Segmenter(network, settings)
    left = [v for v in videos if not results.has(v.name, v.frame_names, fingerprint=lambda v=v: v.fingerprint)]
    distributed.barrier()  # all share out the same, before any of it is done
    lengths = [len(video.frame_names) for video in left]
    mine = [left[index] for index in distributed.divide_by_cost(lengths, distributed.world_size())[distributed.rank()]]
    resolutions = choose_resolutions(args, left, network.backbone.patch_size)
    moved = []
    with FrameBar([len(video.frame_names) for video in mine], shown=distributed.is_main()) as bar:
        for video in mine:
            bar.start(video.name, len(video.frame_names))
            tau = segment_video(args, segmenter, video, results, resolution=resolutions[video.name], progress=bar)
            moved += [video.name] if tau != args.tau else []
    if moved:
        wanted = "not {} to {} clusters".format(*args.clusters)
        print(
            f"--tau {args.tau:g}: {wanted} in {len(moved)} of {len(mine)} videos, such as {moved[0]}; another was "
            "chosen for these (stats/ has it; --clusters any keeps it)", file=sys.stderr, flush=True,
        )  # fmt: skip


def choose_resolutions(
    args: argparse.Namespace, videos: list[Video], patch_size: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """The network's resolution for each video; where it changes shapes, or would, a note says so."""
    rule = ResolutionRule(
        tuple(args.resolution), patch_size, explicit=not args.fit_resolution, fit_every_video=args.dataset == OWN_VIDEO
    )
    shapes = {video.name: compute_display_shape(video) for video in videos}
    if distributed.is_main() and (note := rule.describe_changes(shapes)):
        print(f"note: {note}", file=sys.stderr, flush=True)
    return {name: rule.choose(shape) for name, shape in shapes.items()}


def segment_video(
    args: argparse.Namespace, segmenter: Segmenter, video: Video, results: ResultsFolder, *,
    resolution: tuple[int, int], progress: Progress,
) -> float:  # fmt: skip
    """Write the label PNGs and statistics of a video; returns the threshold that its clusters were made with."""
    device, count = segmenter.device, len(video.frame_names)
    fingerprint = video.fingerprint  # before it is read: a frame that changes meanwhile makes results of another
    found = segmenter.segment(read_resized_frames(video, resolution), num_frames=count, progress=progress)
    clock = Clock(device)
    labels, score_of = (found.labels, by_size) if found.objects is None else (found.objects, by_objectness)
    scores = score_of(labels)
    proposals = {kind: choose(kind, labels, scores, limit=args.max_objects) for kind in results.kinds}
    with clock("write"):
        pixels = at_pixels(labels, video.read(), found.boundary_tokens, how=args.upsampling, device=device)
        maps = label_maps(clock.iterate("upsample", pixels), proposals)
        results.write_video(
            video.name, frame_names=video.frame_names, label_maps=report_progress(maps, "writing", progress)
        )
    found.seconds |= clock.seconds | {"write": clock.seconds["write"] - clock.seconds["upsample"]}
    stats = {
        "video": fingerprint,
        "frames": count,
        "resolution": list(resolution),
        "clusters": found.num_clusters,
        "cached": found.cached,
        "tau": found.tau,
        "objects": None if found.objects is None else int(labels.max()) + 1,
        "proposals": {kind: describe(labels, ids, scores) for kind, ids in proposals.items()},
        "seconds": found.seconds,
    }
    results.finish(video.name, stats | {"peak_memory_gb": peak_memory_gb(device)})
    return found.tau


def label_maps(pixels: Iterable[np.ndarray], proposals: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Labels (H, W) of frames to each kind's proposals."""
    for labels in pixels:
        yield {kind: ids[labels] for kind, ids in proposals.items()}


def report(args: argparse.Namespace, videos: list[Video], results: ResultsFolder, protocols: list[str]) -> None:
    """Score, print what it took, draw a contact sheet and overlays. All processes score, the main one does the rest."""
    folders = {name: results.predictions(PROTOCOLS[name].predictions) for name in protocols}
    annotated = sum(video.annotations is not None for video in videos)
    start = time.perf_counter()
    if annotated:
        score_folders(args, videos, folders, provenance=results.provenance)
    if not distributed.is_main():
        return
    if annotated:
        frames = sum(len(video.frame_names) for video in videos) * len(set(folders.values()))
        print(f"scoring: {(time.perf_counter() - start) / frames:.3f} s/frame\n")
    elif args.dataset.startswith("davis17") and "davis" in results.kinds:
        path = results.path / f"{args.dataset}-{split_name(args)}.zip"
        write_archive(path, results.predictions("davis"), [video.name for video in videos])
        print(f"no annotation to score against; for the evaluation server: {path}")
    print(format_costs(results.path))
    draw(args, videos, results)


def score_predictions(args: argparse.Namespace, protocols: list[str], *, told: bool) -> None:
    """Score a folder of label PNGs that is there already. `told`: --save_path is where the user wants the scores."""
    folder = Path(args.predictions)
    if not folder.is_dir():
        raise UserError(f"--predictions {folder}: no such folder")
    videos = find_videos(args)
    scores_path = choose_scores_folder(folder, chosen=args.save_path if told else None, flag="--save_path")
    if not any(video.annotations is not None for video in videos):
        raise UserError(f"--predictions {folder}: --split {args.split} of {args.dataset} has no annotation to score by")
    take_labels(videos, protocols)
    distributed.start()
    try:
        provenance = read_provenance(folder)
        score_folders(args, videos, dict.fromkeys(protocols, folder), provenance=provenance, scores_path=scores_path)
    finally:
        distributed.stop()


def split_name(args: argparse.Namespace) -> str:
    """The split as files of scores are named by it: what is only a part of it says so."""
    part = f"-{args.videos.replace(':', '-')}" if args.videos else ""
    return f"{args.split}{part}{'-selected' if args.sequences else ''}"


def score_folders(
    args: argparse.Namespace, videos: list[Video], folders: dict[str, Path], *, provenance: dict[str, Any],
    scores_path: Path | None = None,
) -> None:  # fmt: skip
    """Score and print by each protocol the label PNGs of its folder; scores go there, or to `scores_path`."""
    annotations = {video.name: video.annotations for video in videos if video.annotations is not None}
    scored: dict[str, Scores] = {}
    for folder in dict.fromkeys(folders.values()):
        names = [name for name, its in folders.items() if its == folder]
        if distributed.is_main():
            print(f"scoring {len(annotations)} videos under {', '.join(names)}", file=sys.stderr, flush=True)
        scored |= score(
            folder, annotations, protocols=names, options=read_score_options(args), keep=True, workers=args.workers,
            scores_path=scores_path,
        )  # fmt: skip
    if not distributed.is_main():
        return
    split = split_name(args)
    for name, folder in folders.items():
        print_table(scored[name])
        written = write_scores(scored[name], scores_path or folder, split=split, provenance=provenance)
        print(f"written to {written}\n")
    note_id_gaps(scored.values())
    print_side_by_side([scored[name] for name in folders])


def draw(args: argparse.Namespace, videos: list[Video], results: ResultsFolder) -> None:
    """Overlay videos where asked for, and one contact sheet of all videos."""
    predictions = results.predictions(results.kinds[0])
    with_overlay = args.overlay if args.overlay is not None else args.dataset == OWN_VIDEO
    for video in videos if with_overlay else []:
        frames = tqdm(
            overlays(video, predictions), f"overlay {video.name}", len(video.frame_names), unit="frame", leave=False
        )
        path = results.path / OVERLAYS / f"{video.name}.mp4"
        print(f"overlay: {write_video(path, frames, rate=video.frame_rate, pixel_aspect=video.pixel_aspect)}")
    rows = ((video.name, list(overlays(video, predictions, count=4))) for video in videos)
    write_picture(path := results.path / CONTACT_SHEET, draw_contact_sheet(rows))
    print(f"contact sheet: {path}")


def overlays(video: Video, predictions: Path, *, count: int | None = None) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 RGB with their masks drawn in: all of them, or `count` spread over the video."""
    names = video.frame_names
    wanted = set(np.linspace(0, len(names) - 1, count or len(names)).round().astype(int).tolist())
    for index, frame in enumerate(video.read()):
        if index in wanted:
            yield draw_overlay(
                frame.permute(1, 2, 0).numpy(), read_label_png(predictions / video.name / f"{names[index]}.png")
            )


def find_videos(args: argparse.Namespace) -> list[Video]:
    root, flag = resolve_root(args.dataset, davis_path=args.davis_path, basepath=args.basepath)
    return load_videos(
        args.dataset, root, split=args.split, flag=flag, sequences=args.sequences, videos=args.videos,
        annotations=args.annotations, allow_damaged=args.allow_damaged,
    )  # fmt: skip


def make_network(args: argparse.Namespace) -> SpatioTemporalNetwork:
    """The network with a trained block, or at the training-free point."""
    if bool(args.resume_path) == args.training_free:
        raise UserError("give either --resume_path CHECKPOINT (a trained block) or --training_free")
    torch.manual_seed(args.seed)
    checkpoint = load_checkpoint(args.resume_path) if args.resume_path else None
    network = build_network(
        backbone=args.backbone, dino_path=args.dino_path, checkpoint_key=args.checkpoint_key,
        image_stats=args.image_stats, checkpoint=checkpoint, source=str(args.resume_path),
        num_blocks=args.num_t, num_heads=args.num_heads, with_cls=False,
    )  # fmt: skip
    if args.tau == AUTO:
        args.tau = stored_tau(checkpoint, args.resume_path)
    if args.training_free:
        network.init_blocks("identity", temperature=args.temperature)
        return network
    if holds_encoder(checkpoint) and args.dino_path:
        print(f"backbone taken from {args.resume_path}, which holds one; --dino_path is not used", file=sys.stderr)
    check_origin(checkpoint, network, num_heads=args.num_heads, source=args.resume_path)
    return network


def stored_tau(checkpoint: dict[str, Any] | None, source: str | None) -> float:
    """The threshold that train.py calibrated for its block.

    Raises:
        UserError: there is none.
    """
    tau = (checkpoint or {}).get("tau_auto")
    if not isinstance(tau, float) or not 0 < tau < float("inf"):
        where = f"{source} holds none" if source else "there is no checkpoint"
        raise UserError(f"--tau auto: {where}; give a number")
    print(f"--tau auto: {tau:.3g}, from {source}", file=sys.stderr)
    return tau


def settings_of(args: argparse.Namespace, network: SpatioTemporalNetwork, kinds: list[str]) -> dict[str, Any]:
    """Everything that the predictions depend on."""
    keys = ("dataset", "split", "resolution", "image_stats", "num_t", "num_heads", "ratio", "max_key_frames", "tau")
    keys += ("clustering", "amp", "memory_gb", "proposals", "upsampling", "clusters", "max_objects")
    keys += ("fit_resolution",)  # stats/ has each video's
    fast = {key: getattr(ENGINES["fast"], key) for key in ("key_pool", "shrinkage", "row_stride")}
    fast = {"fast": fast} if args.clustering == "fast" else {}
    return {
        "predictions": kinds,
        **fast,
        "root": str(resolve_root(args.dataset, davis_path=args.davis_path, basepath=args.basepath)[0].resolve()),
        **{key: getattr(args, key) for key in keys},
        "backbone": {"name": network.backbone.name, "sha256": network.backbone.weights_hash()},
        "block": (
            {"training_free": True, "temperature": args.temperature}
            if args.training_free
            else {"training_free": False, "sha256": hash_file(args.resume_path)}
        ),
    }


if __name__ == "__main__":
    run_main(main, lower="--memory_gb, --resolution, --frame_batch or --max_key_frames, for scoring --workers")
