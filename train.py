"""Train the spatio-temporal block on video without labels (docs/method.md, section 3).

python train.py                                                           # embedded backbone on generated videos
python train.py --basepath VIDEOS --dino_path dino_deitsmall8_pretrain.pth --output_path outputs/run
torchrun --nproc_per_node 8 train.py --config configs/davis17_dino_s8.yaml --basepath VIDEOS ...
python train.py --config ... --output_path outputs/run --resume_path auto      # begin a run, or continue it
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.inputs import check_inputs
    from utils.flags.training import make_parser

    run_main(lambda: check_inputs(make_parser().check()[0]))  # help and what is refused here need none of them

import contextlib
import functools
import itertools
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import utils  # noqa: F401  before torch, which reads how threads are to work when it is loaded

# isort: split
import torch

from data.clips import (
    CLIPS_PER_EPOCH,
    BadFrames,
    Clip,
    ClipDataset,
    StepSampler,
    collate_clips,
    load_batches,
    read_all_frames,
)
from data.loading import check_root, explain_single_file, list_training_videos, load_videos, resolve_root
from data.resolution import check_resolution
from data.selection import warn_about_shapes
from data.videos import read_annotated_frames
from model.engine.threshold import CLUSTER_RANGE
from model.network import SpatioTemporalNetwork, build_network, check_origin
from model.segmenter import Segmenter, SegmenterSettings
from model.training import monitor
from model.training.rounds import TargetRounds
from model.training.step import TrainSettings, clips_per_step, make_optimizer, set_learning_rate, train_step
from model.training.targets import ClipTargets
from model.training.validation import EncodedVideo, compare_with_training_free, encode_video
from model.weights import checkpoint_path
from utils import config, distributed
from utils.device import choose_amp, choose_device
from utils.errors import UserError, run_main
from utils.files import lock_folder
from utils.flags.choices import AUTO, OWN_VIDEO
from utils.flags.training import make_parser
from utils.progress import StageProgress, StepBar, log_line
from utils.run import resume as runs
from utils.run.checkpoints import load_checkpoint
from utils.run.logs import check_profile
from utils.run.provenance import hash_videos
from utils.run.recorder import RecordSettings, RunRecorder, Validation
from utils.run.signals import StopRequest, catch_stop_signals

Videos = dict[str, list[Path]]  # name -> frames
# Flags that a command for the embedded backbone repeats.
KEPT_OPTIONS = ("dataset", "basepath", "train_list", "output_path")
# Data sets with few and short validation videos, which a run ends with, and the multiples of the threshold there.
VALIDATED, VALIDATION_FACTORS = ("sprites",), (0.7, 1.0, 1.4)
# Flags that TensorBoard shows beside the values of a run.
HYPERPARAMETERS = (
    "dataset", "backbone", "resolution", "num_frames", "gap", "num_t", "num_heads", "with_cls", "init", "init_path",
    "temperature", "batch_size", "accumulate", "num_train_steps", "lr", "min_lr", "weight_decay", "clip_grad", "drop",
    "attn_drop", "targets", "rounds", "semantic_weight", "motion_weight", "num_queries", "amp", "seed",
)  # fmt: skip


def main() -> None:
    args = parse_arguments(sys.argv[1:])
    device = choose_device(args.device)
    args.amp = choose_amp(args.amp, device)
    output, asked = Path(args.output_path), args.resume_path
    with contextlib.ExitStack() as stack:
        early = distributed.is_main() and runs.continues_in(output, asked)
        if early:  # before the checkpoint is read: a run that was asked to stop may still write a newer one
            stack.enter_context(lock_folder(output, flag="--output_path"))
        resumed, args.resume_path = runs.find_run(asked, output)
        if resumed:
            runs.check_run(resumed, vars(args), source=args.resume_path)
            last = {"num_train_steps": args.num_train_steps, "source": args.resume_path}
            if asked == AUTO and runs.is_finished(resumed, **last):
                return
        with config.offer_embedded("start_rgb.sh", {name: getattr(args, name) for name in KEPT_OPTIONS}):
            network = make_network(args, resumed).to(device)
        check_resolution(args.resolution, network.backbone.patch_size)
        optimizer = make_optimizer(network, lr=args.lr, weight_decay=args.weight_decay)
        scaler = torch.amp.GradScaler(device.type, enabled=args.amp == "fp16")
        step = runs.restore_run(resumed, optimizer, scaler, **last) if resumed else 0
        if args.profile:
            check_profile(step, args.num_train_steps)
        runs.check_output(output, resume_path=args.resume_path, overwrite=args.overwrite)
        # After all checks of flags, because the videos may be generated.
        videos = list_training_videos(args.dataset, Path(args.basepath), train_list=args.train_list)
        stack.enter_context(distributed.join_group(device))
        if distributed.is_main():
            if not early:
                stack.enter_context(lock_folder(output, flag="--output_path"))
            runs.prepare_output(output, resume_path=args.resume_path, overwrite=args.overwrite)
            runs.rename_unused_checkpoints(output, asked=asked, found=args.resume_path, step=step)
            warn_about_shapes(videos, args.resolution)
        distributed.check_same(step, "the steps of the checkpoints that the processes read")
        distributed.copy_from_main(network.blocks.parameters())
        stop = stack.enter_context(catch_stop_signals())
        batches = stack.enter_context(read_batches(args, videos, step, stop))
        code = run(args, network, optimizer, scaler, videos, batches, resumed=resumed, first_step=step, stop=stop)
    if code:
        sys.exit(code)


def parse_arguments(argv: list[str]) -> Namespace:
    """Parse the command line, complete the flags that depend on others, and check the place of the data."""
    args = make_parser().parse(argv)
    args.temperature = args.temperature or config.choose_temperature(args.backbone, args.dataset)
    args.resolution = tuple(args.resolution)
    args.init_path = checkpoint_path(args.init_path)
    args.basepath = str(find_root(args))
    check_root(args.dataset, Path(args.basepath), split=None, flag="--basepath")
    return args


def run(
    args: Namespace, network: SpatioTemporalNetwork, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
    videos: Videos, batches: Iterator[Clip], *, resumed: dict | None, first_step: int, stop: StopRequest,
) -> int:  # fmt: skip
    """Run the training loop and return the exit code.

    After a request to stop, the loop ends with the current step and a checkpoint.
    """
    settings, device = config.settings_from(vars(args), TrainSettings), next(network.parameters()).device
    bad_frames = BadFrames.resume(videos, (resumed or {}).get("bad_frames"))
    rounds = make_rounds(args, network, videos)
    done, asked = first_step, 0
    with StepBar(args.num_train_steps, first=first_step, pause_every=args.eval_freq) as bar:
        records = start_records(
            args, network, optimizer, scaler, videos, bad_frames, bar, resumed=resumed, step=first_step, stop=stop
        )
        if rounds and not rounds.begins_at(done):
            rounds.enter(done)
        while done < args.num_train_steps and not asked:
            if rounds and rounds.begins_at(done):
                asked = begin_round(rounds, done, records, bar, stop)
                if asked:
                    break
            rate = set_learning_rate(optimizer, done, settings)
            with records.meter:
                clips = list(itertools.islice(batches, args.accumulate))
            if len(clips) < args.accumulate:  # asked to stop while waiting for frames
                asked = stop.exit_code
                if done > first_step:
                    records.save(done)
                break
            for batch in clips:
                bad_frames.add(batch)
            frames = [batch.frames for batch in clips]
            targets = rounds and [[ClipTargets(rounds.load(name), at) for name, at in batch.origins] for batch in clips]
            with torch.autograd.set_detect_anomaly(args.detect_anomaly):
                losses = train_step(network, optimizer, scaler, frames, step=done, settings=settings, targets=targets)
            records.means.add(losses)
            records.meter.add(sum(map(len, frames)))
            done += 1
            bar.count()
            asked = int(distributed.find_largest(stop.exit_code, device))  # once a step: a signal may come at any line
            epoch = done * clips_per_step(settings) / CLIPS_PER_EPOCH
            values = {"lr": rate, "epoch": epoch, "bad_frames": len(bad_frames.files)}
            logged = records.after_step(done, values, asked=asked)
            if "loss" in logged:
                losses = {name.removeprefix("loss_"): value for name, value in logged.items() if "loss_" in name}
                bar.show(", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
        if done == args.num_train_steps and not asked:
            records.validate(done)
    return records.close(done, asked=asked)


def begin_round(rounds: TargetRounds, step: int, records: RunRecorder, bar: StepBar, stop: StopRequest) -> int:
    """Find the targets of the round that begins after `step` steps; return the exit code if asked to stop, else 0."""
    if step:
        records.save(step)  # a run that is killed meanwhile continues from here, with the same block
    with bar.pause("targets") as progress:
        rounds.find(step, stop=lambda: bool(stop.exit_code), progress=progress)
    device = next(rounds.network.parameters()).device
    if asked := int(distributed.find_largest(stop.exit_code, device)):
        return asked
    if unsure := rounds.enter(step):
        log_line(f"note: {len(unsure)} of {len(rounds.lengths)} videos show no sure objects, such as {unsure[0]}; "
                 "their clips add nothing to the object loss")  # fmt: skip
    return 0


def start_records(
    args: Namespace, network: SpatioTemporalNetwork, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
    videos: Videos, bad_frames: BadFrames, bar: StepBar, *, resumed: dict | None, step: int, stop: StopRequest,
) -> RunRecorder:  # fmt: skip
    """Say what is trained, and open the log, the monitor and the checkpoints of the run."""
    millions, frames = sum(p.numel() for p in network.blocks.parameters()) / 1e6, sum(map(len, videos.values()))
    device = next(network.parameters()).device
    count = f"{len(videos)} video{'s' * (len(videos) != 1)}, {frames} frame{'s' * (frames != 1)}"
    log_line(f"{count}; {millions:.2f} M trained parameters on {device}")
    settings = config.settings_from(vars(args), TrainSettings)
    backbone = {"name": network.backbone.name, "sha256": network.backbone.weights_hash()}
    origin = {"backbone": backbone, "data": hash_videos(videos), "clips_per_step": clips_per_step(settings)}
    return RunRecorder(
        config.settings_from(vars(args), RecordSettings), network, step=step, resumed=resumed,
        monitor=make_monitor(args, network, videos, bad_frames, bar) if distributed.is_main() else None,
        validation=make_validation(args, network, stop) if distributed.is_main() else None,
        hyperparameters={name: getattr(args, name) for name in HYPERPARAMETERS}, bar=bar,
        origin=origin | {"bad_frames": bad_frames.files},  # the list grows, and each checkpoint holds all of it
        save=functools.partial(runs.save_run, Path(args.output_path), vars(args), network, optimizer, scaler),
    )  # fmt: skip


def make_rounds(args: Namespace, network: SpatioTemporalNetwork, videos: Videos) -> TargetRounds | None:
    """Make the rounds of targets that the object loss needs; None without it."""
    if args.targets == "none":
        return None
    made_by = {name: getattr(args, name) for name in ("resolution", "image_stats", "num_t", "num_heads")}
    made_by |= {"backbone": network.backbone.weights_hash(), "data": hash_videos(videos)}
    return TargetRounds(
        Path(args.output_path) / "targets", network, lengths={name: len(frames) for name, frames in videos.items()},
        read=lambda name: read_all_frames(videos[name], args.resolution), tau=args.tau, num_steps=args.num_train_steps,
        num_rounds=args.rounds, made_by=made_by,
    )  # fmt: skip


def find_root(args: Namespace) -> Path:
    """Find the folder of the training videos."""
    if args.dataset == OWN_VIDEO and args.basepath is None:
        raise UserError("--basepath is missing; give the folder of videos to train on")
    root, _ = resolve_root(args.dataset, davis_path=None, basepath=args.basepath, davis_flag="--basepath")
    if args.dataset == OWN_VIDEO and root.is_file():  # before any weights are downloaded
        raise UserError(f"--basepath {root}: {explain_single_file(root)}")
    return root


def make_network(args: Namespace, resumed: dict | None) -> SpatioTemporalNetwork:
    """Build the network, its block from a checkpoint if one is given, else from its --init."""
    torch.manual_seed(args.seed)
    path = args.resume_path or args.init_path
    content = resumed or (load_checkpoint(path) if path else None)
    network = build_network(
        backbone=args.backbone, dino_path=args.dino_path, checkpoint_key=args.checkpoint_key,
        image_stats=args.image_stats, checkpoint=content, source=str(path), num_blocks=args.num_t,
        num_heads=args.num_heads, with_cls=args.with_cls, drop=args.drop, attn_drop=args.attn_drop,
    )  # fmt: skip
    if path:
        check_origin(content, network, num_heads=args.num_heads, source=path)
    else:
        network.init_blocks(args.init, temperature=args.temperature)
    return network


def read_batches(
    args: Namespace, videos: Videos, first_step: int, stop: StopRequest
) -> contextlib.AbstractContextManager[Iterator[Clip]]:
    """Read this process's batches of clips from `first_step` to the end of the run."""
    clips = ClipDataset(videos, resolution=args.resolution, num_frames=args.num_frames, gap=args.gap, seed=args.seed)
    sampler = StepSampler(
        start_step=first_step, num_steps=args.num_train_steps,
        clips_per_step=clips_per_step(config.settings_from(vars(args), TrainSettings)),
        rank=distributed.rank(), world_size=distributed.world_size(), repeat=args.overfit,
    )  # fmt: skip
    return load_batches(
        clips, num_workers=args.num_workers, stop=stop, batch_size=args.batch_size, sampler=sampler,
        collate_fn=collate_clips,
    )  # fmt: skip


def make_monitor(
    args: Namespace, network: torch.nn.Module, videos: Videos, bad_frames: BadFrames, bar: StepBar
) -> monitor.Monitor | None:
    """Make the monitor with --watch_clips training clips; a clip that cannot be read is an error. None if it is off."""
    if not args.eval_freq:
        return None
    dataset = ClipDataset(
        videos, resolution=args.resolution, num_frames=monitor.NUM_FRAMES, gap=args.gap, seed=args.seed, augment=False
    )
    clips = [dataset[index] for index in range(args.watch_clips)]
    for clip in clips:
        bad_frames.add(clip)
    for kind in sorted(dataset.conversions):
        log_line(f"note: training frames: {kind}")
    count = f"{len(clips)} clip{'s' * (len(clips) != 1)}"
    often = "every step" if args.eval_freq == 1 else f"every {args.eval_freq} steps"
    log_line(f"monitor: segments {count} {often}; --eval_freq 0 turns it off")
    with bar.pause("monitor") as progress:
        return monitor.Monitor(network, [clip.frames for clip in clips], tau=args.tau, progress=progress)


def make_validation(args: Namespace, network: SpatioTemporalNetwork, stop: StopRequest) -> Validation | None:
    """Make the validation of the trained block beside the training-free one; None if it is off."""
    if args.dataset not in VALIDATED or not args.eval_freq or args.num_t > 1:
        return None
    return functools.partial(validate, args, network, lambda: bool(stop.exit_code))


def validate(
    args: Namespace, network: SpatioTemporalNetwork, stop: Callable[[], bool], progress: StageProgress
) -> tuple[dict[str, float], str] | None:
    """Validate the trained block on the validation videos of the data set: values to log, and what they say.

    Returns None if asked to stop.
    """
    videos = load_videos(args.dataset, Path(args.basepath), split="val", flag="--basepath")
    settings = SegmenterSettings(tau=args.tau, clustering="fast", clusters=CLUSTER_RANGE)
    segmenter = Segmenter(network, settings)

    def encode() -> Iterator[EncodedVideo]:
        for index, video in enumerate(videos):
            progress("features", index, len(videos))
            yield encode_video(read_annotated_frames(video, args.resolution), segmenter, mirror=False)

    found = compare_with_training_free(
        network, encode(), settings, temperature=args.temperature, factors=VALIDATION_FACTORS, stop=stop,
        progress=lambda done: progress("videos", done, len(videos)),
    )  # fmt: skip
    if found is None:
        return None
    where = f"{len(videos)} validation videos, on tokens, fast, {len(VALIDATION_FACTORS)} thresholds"
    return found.name_values(), f"{where}: {found.describe()}"


if __name__ == "__main__":
    run_main(main, lower="--batch_size, --resolution, --num_frames or --num_workers, and go on with --resume_path auto")
