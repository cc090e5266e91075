"""Segment whole videos without labels, then score them where ground truth exists (docs/method.md, sections 4 to 6).

python eval.py                                                            # embedded backbone on generated videos
python eval.py clip.mp4                                                   # your own clips, nothing to score
python eval.py --davis_path DAVIS --dino_path dino_deitsmall8_pretrain.pth --resume_path outputs/run/last.pt
torchrun --nproc_per_node 8 eval.py ...                                   # distributes the videos over processes
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.clips import check_clip_arguments
    from utils.flags.evaluation import make_parser
    from utils.flags.inputs import check_inputs

    def check_command_line() -> None:
        args, explicit = make_parser().check()
        check_clip_arguments(args, explicit)
        check_inputs(args)

    run_main(check_command_line)  # help and what is refused here need none of them

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain
from pathlib import Path

import utils  # noqa: F401  before torch, which reads how threads are to work when it is loaded

# isort: split
import torch

from data.loading import check_root, guess_own_video, resolve_root
from data.overlays import Illustrator
from data.registry import DATASETS
from data.resolution import ResolutionRule, check_resolution, scale_to_patches
from data.selection import Selection, check_sizes, choose_resolutions, ground_truth
from data.videos import Video, compute_fingerprint, read_resized_frames
from model.engine.threshold import CLUSTER_RANGE
from model.network import SpatioTemporalNetwork, build_network, check_origin
from model.objects.proposals import choose_proposals, normalise_proposals, object_options
from model.segmenter import Progress, Segmenter, SegmenterSettings, describe_key_frame_limit
from model.settings import describe_settings
from model.weights import EMBEDDED, checkpoint_path, holds_encoder, identify_embedded
from utils import config, distributed
from utils.clock import Clock
from utils.device import choose_amp, choose_device, peak_memory_gb
from utils.errors import UserError, exit_at_once, run_main
from utils.files import lock_folder
from utils.flags.choices import ANY, AUTO, OWN_VIDEO
from utils.flags.clips import check_clip_arguments, choose_results_name
from utils.flags.evaluation import make_parser
from utils.progress import FrameBar, log_line, report_progress
from utils.report.attention import announce_space, estimate_bytes, write_explanation
from utils.report.jpegs import choose_positions
from utils.report.pages import plan_pixels, write_report
from utils.report.tables import format_costs
from utils.results import ResultsFolder, write_archive
from utils.run.checkpoints import load_checkpoint, stored_tau
from utils.run.provenance import SEGMENTING, list_versions
from utils.scoring.annotations import Annotations
from utils.scoring.evaluators import Options
from utils.scoring.folders import choose_protocols, score_folders
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.score import read_provenance
from utils.scoring.tables import choose_scores_folder

KEPT_OPTIONS = ("clips", "dataset", "split", "davis_path", "basepath", "annotations", "sequences", "videos", "protocol",
                "save_path")  # that a command for the embedded backbone repeats  # fmt: skip


def main() -> None:
    args = parse_arguments(sys.argv[1:])
    if args.predictions:
        return score_predictions(args)
    args.resume_path = checkpoint_path(args.resume_path)
    args.device = choose_device(args.device)
    args.amp = choose_amp(args.amp, args.device)
    with config.offer_embedded("start_eval.sh", {name: getattr(args, name) for name in KEPT_OPTIONS}):
        network = None if can_build_later(args) else make_network(args)
    backbone = network.backbone.identify() if network else identify_embedded()
    if args.fit_resolution and args.dataset == OWN_VIDEO:
        args.resolution = scale_to_patches(args.resolution, backbone.patch_size)
    check_resolution(args.resolution, backbone.patch_size)
    kinds = list(dict.fromkeys(PROTOCOLS[name].predictions for name in args.protocol))
    roots = [str(Path(root).resolve()) for root in args.clips or [args.root]]
    origin = {"root": roots[0] if len(roots) == 1 else roots, "config": args.config, "checkpoint": args.resume_path,
              "versions": list_versions(SEGMENTING)}  # fmt: skip
    results = ResultsFolder(Path(args.save_path), kinds=kinds, settings=describe_settings(vars(args), backbone, kinds),
                            origin=origin, explore=args.explore)  # fmt: skip
    results.check(overwrite=args.overwrite)
    videos = args.selection.load()  # after all checks of flags, because videos may be generated or decoded for it
    check_sizes(videos)
    annotations = ground_truth(videos, args.protocol)
    with ExitStack() as stack:
        stack.enter_context(distributed.join_group())
        if distributed.is_main():
            stack.enter_context(lock_folder(results.path, flag="--save_path"))
            results.prepare(overwrite=args.overwrite)
            lengths = {video.name: len(video.frame_names) for video in videos}
            if note := describe_key_frame_limit(lengths, args.ratio, args.max_key_frames):
                log_line(f"note: {note}")
        distributed.barrier()
        with_overlays = args.overlay or (args.overlay is None and args.dataset == OWN_VIDEO)
        illustrator = Illustrator(results, with_overlays=with_overlays, pixels=plan_pixels(results.path, videos))
        predict(args, network, videos, results, illustrator)
        distributed.barrier()
        report(args, videos, annotations, results, illustrator)


def parse_arguments(argv: list[str]) -> Namespace:
    """Parse the command line, complete the flags that depend on others, and check the place of the data."""
    parser = make_parser()
    args = parser.parse(argv)
    check_clip_arguments(args, parser.explicit)
    if args.clips:
        args.dataset, args.basepath, args.davis_path = OWN_VIDEO, args.clips[0], None
    elif not parser.explicit & {"dataset", "annotations"} and args.davis_path is None:
        args.dataset = guess_own_video(args.basepath, otherwise=args.dataset)
    args.fit_resolution = "resolution" not in parser.explicit
    args.scores_path = args.save_path if "save_path" in parser.explicit else None
    args.save_path = args.save_path or f"outputs/{choose_results_name(args.clips) if args.clips else 'eval'}"
    args.split = args.split or DATASETS[args.dataset].default_split
    args.proposals = normalise_proposals(args.proposals)
    args.temperature = args.temperature or config.choose_temperature(args.backbone, args.dataset)
    if args.training_free and args.tau == AUTO:
        args.tau = SegmenterSettings.tau
    args.clusters = choose_cluster_range(args.clusters or ([ANY] if args.proposals == "clusters" else CLUSTER_RANGE))
    args.protocol = choose_protocols(args.protocol, DATASETS[args.dataset].protocols, dataset=args.dataset)
    args.root, args.root_flag = resolve_root(args.dataset, davis_path=args.davis_path, basepath=args.basepath)
    args.root_flag = "" if args.clips else args.root_flag
    check_root(args.dataset, args.root, split=args.split, flag=args.root_flag)
    args.selection = config.settings_from(vars(args), Selection)
    args.score_options = config.settings_from(vars(args), Options)
    return args


def choose_cluster_range(counts: Sequence[int | str]) -> tuple[int, int] | None:
    """Return the least and the most clusters that --clusters allows; None for any number.

    Raises:
        UserError: `counts` are neither two numbers, the lower one first, nor the one word `ANY`.
    """
    if list(counts) == [ANY]:
        return None
    if len(counts) != 2 or ANY in counts or counts[0] > counts[1]:
        raise UserError(f"--clusters {' '.join(map(str, counts))}: give two numbers, the lower one first, or any")
    return tuple(counts)


def can_build_later(args: Namespace) -> bool:
    """Tell whether the network has no user's file to be checked, so that it is built only if a video is segmented."""
    chosen = args.resume_path or args.dino_path or args.checkpoint_key
    return args.backbone == EMBEDDED and args.training_free and not chosen


def make_network(args: Namespace) -> SpatioTemporalNetwork:
    """Build the network with a trained block or the training-free one, and complete --tau auto."""
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
        stored = stored_tau(checkpoint)
        args.tau = stored or SegmenterSettings.tau
        origin = f"the threshold that {args.resume_path} holds" if stored else f"as {args.resume_path} holds none"
        log_line(f"note: tau {args.tau:.3g}, {origin}; --tau X takes another")
    if args.training_free:
        network.init_blocks("identity", temperature=args.temperature)
        return network.to(args.device)
    if holds_encoder(checkpoint) and args.dino_path:
        log_line(f"note: --dino_path is not used: {args.resume_path} holds a backbone, which is taken")
    check_origin(checkpoint, network, num_heads=args.num_heads, source=args.resume_path)
    return network.to(args.device)


def predict(
    args: Namespace, network: SpatioTemporalNetwork | None, videos: list[Video], results: ResultsFolder,
    illustrator: Illustrator,
) -> None:  # fmt: skip
    """Write the label PNGs of every video that has none yet, the longest first, distributed over processes."""
    left = [v for v in videos if not results.has(v.name, v.frame_names, fingerprint=lambda v=v: compute_fingerprint(v),
                                                 root=args.selection.find_root(v))]  # fmt: skip
    distributed.barrier()  # before any process writes, so that all processes see the same videos left
    if not left:
        return
    network = network or make_network(args)
    segmenter = Segmenter(network, SegmenterSettings(
        key_stride=args.ratio, max_key_frames=args.max_key_frames, tau=args.tau, clustering=args.clustering,
        memory_gb=args.memory_gb, frame_batch=args.frame_batch, amp=args.amp, spill_path=results.path,
        feature_cache=args.feature_cache, objects=object_options(args.proposals), clusters=args.clusters,
        motion=args.motion == "flow", explain=args.explore,
    ))  # fmt: skip
    parts = distributed.divide_by_cost([len(video.frame_names) for video in left], distributed.world_size())
    mine = [left[index] for index in parts[distributed.rank()]]
    resolutions = choose_resolutions(left, ResolutionRule(
        tuple(args.resolution), network.backbone.patch_size, explicit=not args.fit_resolution,
        fit_every_video=args.dataset == OWN_VIDEO,
    ))  # fmt: skip
    if args.explore:
        announce_space({video.name: estimate_bytes(
            frames=len(choose_positions(len(video.frame_names))),
            **segmenter.measure_explanation(len(video.frame_names), resolutions[video.name]),
        ) for video in left}, results.path)  # fmt: skip
    moved = []
    with FrameBar([len(video.frame_names) for video in mine], shown=distributed.is_main()) as bar:
        for video in mine:
            bar.start(video.name, len(video.frame_names))
            tau = segment_video(args, segmenter, video, results, illustrator, resolution=resolutions[video.name],
                                progress=bar)  # fmt: skip
            moved += [video.name] if tau != args.tau else []
    if moved := list(chain(*distributed.gather(moved))):
        log_line(f"note: --tau {args.tau:g}: --clusters chose another in {len(moved)} of {len(left)} videos, such as "
                 f"{moved[0]} (stats/ has it)")  # fmt: skip


def segment_video(
    args: Namespace, segmenter: Segmenter, video: Video, results: ResultsFolder, illustrator: Illustrator, *,
    resolution: tuple[int, int], progress: Progress,
) -> float:  # fmt: skip
    """Write the label PNGs and statistics of a video, and return the threshold that its clusters were made with."""
    fingerprint = compute_fingerprint(video)  # before the frames are read, so that a later change of one is noticed
    device, count, clock = segmenter.device, len(video.frame_names), Clock(segmenter.device)
    found = segmenter.segment(read_resized_frames(video, resolution), num_frames=count, progress=progress,
                              flows=video.flow and video.flow.read())  # fmt: skip
    proposals = choose_proposals(found, results.kinds, limit=args.max_objects)
    make_maps = partial(proposals.label_maps, upsampling=args.upsampling, device=device)
    described = proposals.describe()
    maps = illustrator.draw_along(video, make_maps, background=results.select_background(described), clock=clock,
                                  key_frames=found.explanation.key_frames if found.explanation else [])  # fmt: skip
    with clock("write"), closing(maps):  # closed, so that no half-written overlay stays if a mask cannot be written
        results.write_video(video.name, frame_names=video.frame_names,
                            label_maps=report_progress(maps, "writing", progress))  # fmt: skip
    if found.explanation:
        with clock("explore"):
            write_explanation(results.explanation(video.name), found.explanation, choose_positions(count))
    seconds = found.seconds | clock.seconds
    seconds["write"] -= seconds["upsample"] + seconds["draw"]
    results.finish(video.name, {
        "video": fingerprint, "root": str(args.selection.find_root(video)), "frames": count,
        "resolution": list(resolution), "clusters": found.num_clusters, "cached": found.cached, "tau": found.tau,
        "objects": None if found.objects is None else int(found.objects.max()) + 1,
        "proposals": described, "seconds": seconds, "peak_memory_gb": peak_memory_gb(device),
    })  # fmt: skip
    return found.tau


def report(
    args: Namespace, videos: list[Video], annotations: dict[str, Annotations], results: ResultsFolder,
    illustrator: Illustrator,
) -> None:  # fmt: skip
    """Score the results, print what they cost, draw overlays and a contact sheet, and write pages for a browser."""
    folders = {name: results.predictions(PROTOCOLS[name].predictions) for name in args.protocol}
    start = time.perf_counter()
    if annotations:
        score_folders(folders, annotations, options=args.score_options, split=args.selection.name,
                      provenance=results.provenance, workers=args.workers)  # fmt: skip
    if not distributed.is_main():
        return
    if annotations:
        frames = sum(len(video.frame_names) for video in videos) * len(set(folders.values()))
        print(f"scoring: {(time.perf_counter() - start) / frames:.3f} s/frame\n")
    elif args.dataset.startswith("davis17") and "davis" in results.kinds:
        path = results.path / f"{args.dataset}-{args.selection.name}.zip"
        write_archive(path, results.predictions("davis"), [video.name for video in videos])
        print(f"no annotation to score against; for the evaluation server: {path}")
    print(format_costs(results.path))
    illustrator.finish(videos)
    print(f"report: {write_report(results.path, videos, flag='--save_path')}")


def score_predictions(args: Namespace) -> None:
    """Score a folder of label PNGs, whoever wrote them."""
    folder = Path(args.predictions)
    if not folder.is_dir():
        raise UserError(f"--predictions {folder}: no such folder")
    videos = args.selection.load()
    scores_path = choose_scores_folder(folder, chosen=args.scores_path, flag="--save_path")
    if not (annotations := ground_truth(videos, args.protocol)):
        raise UserError(f"--predictions {folder}: --split {args.split} of {args.dataset} has no annotation to score by")
    with distributed.join_group():
        score_folders(dict.fromkeys(args.protocol, folder), annotations, options=args.score_options,
                      split=args.selection.name, provenance=read_provenance(folder), scores_path=scores_path,
                      workers=args.workers)  # fmt: skip


if __name__ == "__main__":
    run_main(main, lower="--memory_gb, --resolution, --frame_batch or --max_key_frames, for scoring --workers")
    exit_at_once()
