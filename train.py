"""Train the spatio-temporal block on video without labels (docs/method.md, section 3).

python train.py                                                           # embedded backbone on generated videos
python train.py --basepath VIDEOS --dino_path dino_deitsmall8_pretrain.pth --output_path outputs/run
torchrun --nproc_per_node 8 train.py --config configs/davis17_dino_s8.yaml --basepath VIDEOS ...
python train.py --config ... --output_path outputs/run --resume_path auto      # begin a run, or go on with it
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import exit_on_interrupt

    exit_on_interrupt()

import argparse
import contextlib
import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import utils  # noqa: F401  before torch, which reads how threads are to work when it is loaded

# isort: split
import torch
from tqdm import tqdm

from data.clips import CLIPS_PER_EPOCH, BadFrames, Clip, ClipDataset, StepSampler, collate_clips, load_batches
from data.frames import UnreadableImage
from data.headers import read_image_size
from data.loading import check_root, explain_single_file, list_training_videos, resolve_root
from data.registry import DATASET_NAMES, OWN_VIDEO, parse_dataset_name
from data.resolution import MAX_SHAPE_CHANGE, measure_shape_change
from model.network import SpatioTemporalNetwork, build_network, check_origin
from model.training import monitor
from model.training.step import clips_per_step, make_optimizer, set_learning_rate, train_step
from model.weights import checkpoint_path
from utils import config, distributed
from utils.config import not_negative_float, not_negative_int, positive_float, positive_int
from utils.device import choose_device
from utils.errors import UserError, run_main
from utils.files import lock_folder
from utils.progress import log_line
from utils.run import resume
from utils.run.checkpoints import load_checkpoint
from utils.run.logs import check_profile
from utils.run.provenance import hash_videos
from utils.run.recorder import RunRecorder
from utils.run.signals import StopRequest, catch_stop_signals

MOST_SIZES = 500  # videos whose shape is looked at, since that opens a file of each


def make_parser() -> config.Parser:
    parser = config.Parser(
        program="train", description="Train the spatio-temporal block on video without labels.",
        idle=(("temperature", "init_path"), ("init", "init_path")),
    )  # fmt: skip
    data = parser.add_argument_group("data").add_argument
    data(
        "--dataset", default=OWN_VIDEO, type=parse_dataset_name, choices=DATASET_NAMES,
        help="video: whatever frames lie below --basepath; others: their training split below it, or all of them",
    )  # fmt: skip
    data("--basepath", help="folder with folders of frames in any depth below it, or the root of --dataset")
    data("--train_list", help="file, relative to --basepath, that names the videos to use")
    data("--resolution", type=positive_int, nargs=2, default=(192, 384), metavar=("H", "W"))
    data("--num_frames", type=positive_int, default=3, help="frames in a clip (T)")
    data("--gap", type=positive_int, default=4, help="distance of a clip's frames in the video")
    data("--num_workers", type=not_negative_int, default=2, help="processes that read frames")
    config.add_network_arguments(parser)
    parser.add_argument(
        "--with_cls", action=argparse.BooleanOptionalAction, default=True, help="CLS tokens in training"
    )
    train = parser.add_argument_group("training").add_argument
    train("--init", default="random", choices=("random", "identity"), help="start of the block")
    train("--init_path", help="checkpoint to take the block's weights from; embedded: the one in assets/")
    train(
        "--resume_path",
        help="checkpoint of the run to continue: weights, optimizer, schedule, step, RNG; auto: the newest in "
        "--output_path, if there is one",
    )
    train("--output_path", default="outputs/train", help="where checkpoints and logs go")
    train("--overwrite", action="store_true", help="start anew over the run in --output_path")
    train("--batch_size", type=positive_int, default=1, help="clips per process and forward pass")
    train("--accumulate", type=positive_int, default=1, help="forward passes per step")
    train("--num_train_steps", type=positive_int, default=5000)
    train("--lr", type=positive_float, default=1e-5, help="peak learning rate, cosine down to --min_lr")
    train("--min_lr", type=not_negative_float, default=1e-6)
    train("--warmup_steps", type=not_negative_int, default=0)
    train("--weight_decay", type=not_negative_float, default=0.1, help="on matrices; none on biases and norms")
    train("--clip_grad", type=positive_float, default=1.0, help="largest gradient norm")
    train("--drop", type=config.fraction, default=0.1, help="dropout on projections and MLP of the block")
    train("--attn_drop", type=config.fraction, default=0.4, help="dropout on the block's attention")
    train("--semantic_weight", type=not_negative_float, default=1.0, help="of the semantic loss")
    train("--motion_weight", type=not_negative_float, default=1.0, help="of the motion loss")
    train("--num_queries", type=positive_int, default=8, help="token positions per step that both losses look at")
    train("--log_freq", type=positive_int, default=10)
    train("--save_freq", type=positive_int, default=1000, help="steps between checkpoints that are kept")
    train("--last_freq", type=positive_int, default=100, help="steps between checkpoints that replace last.pt")
    train(
        "--eval_freq",
        type=positive_int,
        default=500,
        help="steps between the monitor's measurements on fixed clips",
    )
    train("--watch_clips", type=positive_int, default=4, help="how many fixed clips")
    train("--tau", type=positive_float, default=1.0, help="threshold of the clustering for those looks")
    search = parser.add_argument_group("finding faults").add_argument
    search("--overfit", type=positive_int, metavar="N", help="train on the first N clips again and again")
    search("--profile", action="store_true", help="write where steps 3 to 5 spend their time to --output_path/profile")
    search("--detect_anomaly", action="store_true", help="name the operation whose gradient is NaN; slow")
    return parser


def main() -> None:
    args = make_parser().parse(sys.argv[1:])
    args.temperature = args.temperature or config.choose_temperature(args.backbone, args.dataset)
    device = choose_device(args.device)
    args.init_path = checkpoint_path(args.init_path)
    check_root(args.dataset, find_root(args), split=None, flag="--basepath")
    output, asked = Path(args.output_path), args.resume_path
    with contextlib.ExitStack() as stack:
        early = distributed.is_main() and resume.continues_in(output, asked)
        if early:  # before the checkpoint is read: a run that is asked to stop may be about to save a newer one
            stack.enter_context(lock_folder(output, flag="--output_path"))
        resumed, args.resume_path = resume.find_run(asked, output)
        if resumed:
            resume.check_run(resumed, args)
        if asked == resume.AUTO and resumed and resume.is_finished(resumed, args):
            return
        with config.offer_embedded("start_rgb.sh", args, ("dataset", "basepath", "train_list", "output_path")):
            network = make_network(args, resumed).to(device)
        config.check_resolution(args.resolution, network.backbone.patch_size)
        optimizer = make_optimizer(network, lr=args.lr, weight_decay=args.weight_decay)
        scaler = torch.amp.GradScaler(device.type, enabled=args.amp == "fp16")
        step = resume.restore_run(resumed, args, optimizer, scaler) if resumed else 0
        if args.profile:
            check_profile(step, args.num_train_steps)
        resume.check_output(output, resume_path=args.resume_path, overwrite=args.overwrite)
        videos = find_videos(args)  # only now: it may generate them
        distributed.start(device)
        stack.callback(distributed.stop)
        if distributed.is_main():
            if not early:
                stack.enter_context(lock_folder(output, flag="--output_path"))
            resume.prepare_output(output, resume_path=args.resume_path, overwrite=args.overwrite)
            resume.rename_unused_checkpoints(output, asked=asked, found=args.resume_path, step=step)
            say_squashed(args.resolution, videos)
        distributed.check_same(step, "the steps of the checkpoints that the processes read")
        distributed.copy_from_main(network.blocks.parameters())
        stop = stack.enter_context(catch_stop_signals())
        batches = stack.enter_context(read_batches(args, make_clips(args, videos), step, stop))
        code = run(args, network, optimizer, scaler, videos, batches, resumed=resumed, first_step=step, stop=stop)
    if code:
        sys.exit(code)


def run(
    args: argparse.Namespace, network: SpatioTemporalNetwork, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler, videos: dict[str, list[Path]], batches: Iterator[Clip], *, resumed: dict | None,
    first_step: int, stop: StopRequest,
) -> int:  # fmt: skip
    """The training loop; once it is asked to `stop` it ends after the step it is at, with a checkpoint.

    Returns the code to exit with.
    """
    device, num_images = next(network.parameters()).device, sum(map(len, videos.values()))
    num_parameters = sum(p.numel() for p in network.blocks.parameters())
    log_line(f"{len(videos)} videos, {num_images} frames; {num_parameters / 1e6:.2f} M trained parameters on {device}")
    bad_frames = BadFrames.resume(videos, (resumed or {}).get("bad_frames"))
    backbone = {"name": network.backbone.name, "sha256": network.backbone.weights_hash()}
    origin = {"backbone": backbone, "data": hash_videos(videos), "clips_per_step": clips_per_step(args)}
    records = RunRecorder(
        args, network, step=first_step, resumed=resumed,
        monitor=make_watch(args, network, videos, bad_frames) if distributed.is_main() else None,
        origin=origin | {"bad_frames": bad_frames.files},  # as they are when a checkpoint is written
        save=functools.partial(resume.save_run, Path(args.output_path), args, network, optimizer, scaler),
    )  # fmt: skip
    done, asked = first_step, 0
    with tqdm(total=args.num_train_steps, initial=first_step, unit="step", disable=not distributed.is_main()) as bar:
        while done < args.num_train_steps and not asked:
            rate = set_learning_rate(optimizer, done, args)
            with records.meter:
                taken = list(itertools.islice(batches, args.accumulate))
            if len(taken) < args.accumulate:  # asked to stop while waiting for frames
                asked = stop.exit_code
                if done > first_step:
                    records.save(done)
                break
            for batch in taken:
                bad_frames.add(batch)
            with torch.autograd.set_detect_anomaly(args.detect_anomaly):
                frames = [batch.frames for batch in taken]
                losses = train_step(args, network, optimizer, scaler, frames, step=done)
            records.means.add(losses)
            records.meter.add(sum(map(len, frames)))
            done += 1
            asked = int(distributed.find_largest(stop.exit_code, device))  # once a step: a signal may come at any line
            epoch = done * clips_per_step(args) / CLIPS_PER_EPOCH
            values = {"lr": rate, "epoch": epoch, "bad_frames": len(bad_frames.files)}
            logged = records.after_step(done, values, asked=asked)
            if "loss" in logged:
                bar.set_postfix(semantic=f"{logged['loss_semantic']:.3f}", motion=f"{logged['loss_motion']:.3f}")
            bar.update()
    return records.close(done, asked=asked)


def find_root(args: argparse.Namespace) -> Path:
    """Where the training videos are; `args.basepath` then says so, and with it every checkpoint."""
    if args.dataset == OWN_VIDEO and args.basepath is None:
        raise UserError("--basepath is missing; give the folder of videos to train on")
    root, _ = resolve_root(args.dataset, davis_path=None, basepath=args.basepath, davis_flag="--basepath")
    if args.dataset == OWN_VIDEO and root.is_file():  # before any weights are fetched
        raise UserError(f"--basepath {root}: {explain_single_file(root)}")
    args.basepath = str(root)
    return root


def find_videos(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Frames of every training video."""
    return list_training_videos(args.dataset, find_root(args), train_list=args.train_list)


def say_squashed(resolution: tuple[int, int], videos: dict[str, list[Path]]) -> None:
    """Say where the resolution, one for all since clips are stacked, changes the shapes of videos much.

    Of many videos only some are looked at, spread evenly.
    """
    names = list(videos)
    sample = names[:: -(-len(names) // MOST_SIZES)]
    sizes = {}
    for name in sample:
        with contextlib.suppress(UnreadableImage):  # told when the frame itself is read
            sizes[name] = read_image_size(videos[name][0])
    changes = {name: measure_shape_change(resolution, size) for name, size in sizes.items()}
    if odd := [name for name, change in changes.items() if change > MAX_SHAPE_CHANGE]:
        worst = max(odd, key=changes.get)
        counted = f"{len(odd)} of {len(sizes)} videos{' looked at' if len(sizes) < len(videos) else ''}"
        log_line(
            "note: --resolution {} {}: changes the shape of {} by more than a factor of {}, such as {} of {}x{} by "
            "{:.2f}; clips of a batch have one shape".format(
                *resolution, counted, MAX_SHAPE_CHANGE, worst, *sizes[worst], changes[worst]
            )
        )


def make_network(args: argparse.Namespace, resumed: dict | None) -> SpatioTemporalNetwork:
    torch.manual_seed(args.seed)
    path = args.resume_path or args.init_path
    content = resumed or (load_checkpoint(path) if path else None)
    network = build_network(
        backbone=args.backbone, dino_path=args.dino_path, checkpoint_key=args.checkpoint_key,
        image_stats=args.image_stats, checkpoint=content, source=str(path),
        num_blocks=args.num_t, num_heads=args.num_heads, with_cls=args.with_cls, drop=args.drop,
        attn_drop=args.attn_drop,
    )  # fmt: skip
    if path:
        check_origin(content, network, num_heads=args.num_heads, source=path)
    else:
        network.init_blocks(args.init, temperature=args.temperature)
    return network


def make_clips(args: argparse.Namespace, videos: dict[str, list[Path]]) -> ClipDataset:
    return ClipDataset(
        videos, resolution=tuple(args.resolution), num_frames=args.num_frames, gap=args.gap, seed=args.seed
    )


def read_batches(
    args: argparse.Namespace, clips: ClipDataset, first_step: int, stop: StopRequest
) -> contextlib.AbstractContextManager[Iterator[Clip]]:
    """This process's batches from `first_step` on, while they are needed."""
    sampler = StepSampler(
        start_step=first_step, num_steps=args.num_train_steps, clips_per_step=clips_per_step(args),
        rank=distributed.rank(), world_size=distributed.world_size(), repeat=args.overfit,
    )  # fmt: skip
    return load_batches(
        clips, num_workers=args.num_workers, stop=stop, batch_size=args.batch_size, sampler=sampler,
        collate_fn=collate_clips,
    )  # fmt: skip


def make_watch(
    args: argparse.Namespace, network: SpatioTemporalNetwork, videos: dict[str, list[Path]], bad_frames: BadFrames
) -> monitor.Monitor:
    """Looks at --watch_clips fixed training clips; stops the run where one cannot be read."""
    dataset = ClipDataset(
        videos, resolution=tuple(args.resolution), num_frames=monitor.NUM_FRAMES, gap=args.gap, seed=args.seed,
        augment=False,
    )  # fmt: skip
    clips = [dataset[index] for index in range(args.watch_clips)]
    for clip in clips:
        bad_frames.add(clip)
    for conversion in sorted(dataset.conversions):
        log_line(f"note: training frames: {conversion}")
    return monitor.Monitor(network, [clip.frames for clip in clips], tau=args.tau)


if __name__ == "__main__":
    run_main(main, lower="--batch_size, --resolution, --num_frames or --num_workers, and go on with --resume_path auto")
