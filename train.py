"""Train the spatio-temporal block on video without labels (METHOD.md 3).

python train.py                                                           # embedded backbone on generated videos
python train.py --basepath VIDEOS --dino_path dino_deitsmall8_pretrain.pth --output_path outputs/run
torchrun --nproc_per_node 8 train.py --config configs/davis17_dino_s8.yaml --basepath VIDEOS ...
python train.py --config ... --output_path outputs/run --resume_path auto      # begin a run, or go on with it
"""

import argparse
import contextlib
import copy
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.clips import (
    CLIPS_PER_EPOCH,
    BadFrames,
    ClipDataset,
    StepSampler,
    collate_clips,
    index_videos,
    reading_faults,
)
from data.registry import OWN_VIDEO, TRAINING_NAMES, check_place, root_of, training_videos
from model.embedded import checkpoint_path
from model.losses import anchor_loss, attention_entropy, motion_loss, semantic_loss
from model.network import SpatioTemporalNetwork, build_network, check_origin
from model.watch import Watch
from utils import distributed
from utils.checkpoint import load_checkpoint
from utils.config import (
    Parser,
    add_network_arguments,
    check_resolution,
    not_negative_float,
    not_negative_int,
    positive_float,
    positive_int,
    share,
)
from utils.device import autocast, choose_device
from utils.errors import UserError, run_main
from utils.folders import held
from utils.logs import Meter, RunLog
from utils.origin import fingerprint, origin
from utils.runs import AUTO, check_output, find_run, is_done, prepare_output, restore_run, save_run, say
from utils.stopping import StopRequest, leave_to_parent, stop_requests

WATCH = {"num_frames": 12, "key_stride": 4}  # of the clips that are segmented while training
PROFILED_STEPS = 3  # after two others
NOT_FINITE_MEND = "lower --lr or use --amp none, and resume from the last checkpoint if there is one"


def make_parser() -> Parser:
    parser = Parser(
        program="train", description="Train the spatio-temporal block on video without labels.",
        idle=(("temperature", "init_path"), ("init", "init_path")),
    )  # fmt: skip
    data = parser.add_argument_group("data").add_argument
    data(
        "--dataset",
        default=OWN_VIDEO,
        choices=TRAINING_NAMES,
        help="video: whatever frames lie below --basepath; others: their training split below it",
    )
    data("--basepath", help="folder with folders of frames in any depth below it, or the root of --dataset")
    data("--train_list", help="file, relative to --basepath, that names the videos to use")
    data("--resolution", type=positive_int, nargs=2, default=(192, 384), metavar=("H", "W"))
    data("--num_frames", type=positive_int, default=3, help="frames in a clip (T)")
    data("--gap", type=positive_int, default=4, help="distance of a clip's frames in the video")
    data("--num_workers", type=not_negative_int, default=2, help="processes that read frames")
    add_network_arguments(parser)
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
    train("--drop", type=share, default=0.1, help="dropout on projections and MLP of the block")
    train("--attn_drop", type=share, default=0.4, help="dropout on the block's attention")
    train("--semantic_weight", type=not_negative_float, default=1.0, help="of the semantic loss")
    train("--motion_weight", type=not_negative_float, default=1.0, help="of the motion loss")
    train(
        "--anchor_weight", type=not_negative_float, default=0.0,
        help="of the divergence of the attention from that of the start; 0 as in the paper",
    )  # fmt: skip
    train("--num_queries", type=positive_int, default=8, help="token positions per step that both losses look at")
    train("--log_freq", type=positive_int, default=10)
    train("--save_freq", type=positive_int, default=1000, help="steps between checkpoints that are kept")
    train("--last_freq", type=positive_int, default=100, help="steps between checkpoints that replace last.pt")
    train(
        "--eval_freq",
        type=positive_int,
        default=500,
        help="steps between looks at fixed clips: clusters, agreement with the mirror image",
    )
    train("--watch_clips", type=positive_int, default=4, help="how many fixed clips")
    train("--tau", type=positive_float, default=1.0, help="threshold of the clustering for those looks")
    search = parser.add_argument_group("finding faults").add_argument
    search("--overfit", type=positive_int, metavar="N", help="train on the first N clips again and again")
    search("--profile", action="store_true", help="write where steps 3 to 5 spend their time to --output_path/profile")
    search("--detect_anomaly", action="store_true", help="name the operation whose gradient is not finite; slow")
    return parser


def main() -> None:
    args = make_parser().parse(sys.argv[1:])
    device = choose_device(args.device)
    args.init_path = checkpoint_path(args.init_path)
    check_place(args.dataset, find_root(args), split=None, flag="--basepath")
    begin_or_go_on = args.resume_path == AUTO
    resumed, args.resume_path = find_run(args.resume_path, Path(args.output_path))
    if begin_or_go_on and resumed and is_done(resumed, args):
        return
    network = make_network(args, resumed).to(device)
    check_resolution(args.resolution, network.backbone.patch_size)
    optimizer = make_optimizer(network, lr=args.lr, weight_decay=args.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=args.amp == "fp16")
    step = restore_run(resumed, args, optimizer, scaler) if resumed else 0
    if args.profile and args.num_train_steps - step < 2 + PROFILED_STEPS:
        raise UserError(f"--profile: looks at steps 3 to {2 + PROFILED_STEPS}; raise --num_train_steps to {step + 5}")
    output = {"resume_path": args.resume_path, "overwrite": args.overwrite}
    check_output(Path(args.output_path), **output)
    videos = find_videos(args)  # only now: it may generate them
    distributed.start(device)
    with contextlib.ExitStack() as stack:
        stack.callback(distributed.stop)
        if distributed.is_main():
            stack.enter_context(held(Path(args.output_path), flag="--output_path"))
            prepare_output(Path(args.output_path), **output)
        distributed.copy_from_main(network.blocks.parameters())
        start = starting_blocks(args, network, resumed)
        stop = stack.enter_context(stop_requests())
        with reading_faults():
            run(args, network, optimizer, scaler, videos, first_step=step, start=start, stop=stop)
    if stop.exit_code:
        sys.exit(stop.exit_code)


def run(
    args: argparse.Namespace,
    network: SpatioTemporalNetwork,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    videos: dict[str, list[Path]],
    *,
    first_step: int,
    start: torch.nn.ModuleList | None,
    stop: StopRequest,
) -> None:
    """The training loop; once it is asked to `stop` it ends after the step it is at, with a checkpoint."""
    device = next(network.parameters()).device
    output = Path(args.output_path)
    num_images = sum(map(len, videos.values()))
    num_parameters = sum(p.numel() for p in network.blocks.parameters())
    say(f"{len(videos)} videos, {num_images} frames; {num_parameters / 1e6:.2f} M trained parameters on {device}")
    batches = iter(make_loader(args, videos, first_step))
    bad_frames = BadFrames(num_images)
    watch = make_watch(args, network, videos, bad_frames) if distributed.is_main() else None
    log = RunLog(output, step=first_step) if distributed.is_main() else None
    meter = Meter(device)
    backbone = {"name": network.backbone.name, "sha256": network.backbone.weights_hash()}
    from_where = {"backbone": backbone, "data": fingerprint(videos), **origin()}
    profiler = make_profiler(args)
    bar = tqdm(total=args.num_train_steps, initial=first_step, unit="step", disable=not distributed.is_main())
    if watch and first_step == 0:
        log.write(0, watch.measure(network))
    for step in range(first_step, args.num_train_steps):
        lr = learning_rate(step, args)
        for group in optimizer.param_groups:
            group["lr"] = lr
        clips = []
        with meter:
            for _ in range(args.accumulate):
                batch = next(batches)
                bad_frames.add(batch)
                clips.append(batch.frames)
        with torch.autograd.set_detect_anomaly(args.detect_anomaly):
            losses = train_step(args, network, optimizer, scaler, clips, step=step, start=start)
        meter.add(losses, clips=sum(map(len, clips)))
        done = step + 1
        if profiler:
            profiler.step()
        asked = int(distributed.largest(stop.exit_code, device))  # once a step: a signal may come at any line
        scalars = {}
        if done % args.log_freq == 0 or done == args.num_train_steps:
            scalars = {"lr": lr, "epoch": done * clips_per_step(args) / CLIPS_PER_EPOCH, **meter.read()}
            scalars["bad_frames"] = len(bad_frames.files)
            bar.set_postfix(semantic=f"{scalars['loss_semantic']:.3f}", motion=f"{scalars['loss_motion']:.3f}")
        if watch and (done % args.eval_freq == 0 or done == args.num_train_steps):
            scalars |= watch.measure(network)
        if log and scalars:
            log.write(done, scalars)
        keep = done % args.save_freq == 0 or done == args.num_train_steps
        if log and (keep or asked or done % args.last_freq == 0):
            save_run(output, args, network, optimizer, scaler, done, start=start, origin=from_where, keep=keep)
        bar.update()
        if asked:
            break
    bar.close()
    stop.exit_code = asked if done < args.num_train_steps else 0
    if log:
        log.close()
        how = f"asked to stop after step {done}; go on with --resume_path auto" if stop.exit_code else "done"
        say(f"{how}: {output / 'last.pt'}")


def train_step(
    args: argparse.Namespace,
    network: SpatioTemporalNetwork,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: list[Tensor],
    *,
    step: int,
    start: torch.nn.ModuleList | None = None,
) -> dict[str, float]:
    """One optimizer step over the forward passes of `batches`, each (B, T, 3, H, W) uint8. Returns what to log.

    `start`: the blocks as training began, to which --anchor_weight ties the attention.

    Everything random is drawn from (seed, step, rank), so that a resumed run repeats what a run never stopped does.
    """
    device = next(network.parameters()).device
    network.train()
    torch.manual_seed(seed_of(args.seed, step, 1 + distributed.rank()))
    height, width = network.backbone.grid_size(*args.resolution)
    same_everywhere = torch.Generator().manual_seed(seed_of(args.seed, step, 0))
    sample = torch.randperm(height * width, generator=same_everywhere)[: args.num_queries].to(device)
    totals: dict[str, float] = defaultdict(float)
    for frames in batches:
        with autocast(device, args.amp):
            embedded = network.embed(frames.to(device, non_blocking=True))
            tokens, attn = network.link(embedded, network.blocks)
        tokens, attn = tokens.float(), attn.float()
        semantic = semantic_loss(attn, tokens, sample)
        motion = motion_loss(attn, sample, num_frames=args.num_frames)
        loss = args.semantic_weight * semantic + args.motion_weight * motion
        if start is not None:
            with torch.no_grad(), autocast(device, args.amp):
                before = network.link(embedded, start)[1].float()
            anchor = anchor_loss(attn, before, sample, num_frames=args.num_frames)
            totals["loss_anchor"] += anchor.item() / len(batches)
            loss = loss + args.anchor_weight * anchor
        if not torch.isfinite(loss):
            raise UserError(f"step {step + 1}: the loss is not finite (semantic {semantic:.4g}, motion {motion:.4g}); "
                            f"{NOT_FINITE_MEND}")  # fmt: skip
        scaler.scale(loss / len(batches)).backward()
        totals["loss"] += loss.item() / len(batches)
        totals["loss_semantic"] += semantic.item() / len(batches)
        totals["loss_motion"] += motion.item() / len(batches)
        totals["attention_entropy"] += attention_entropy(attn, sample, num_frames=args.num_frames).item() / len(batches)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    distributed.average(p.grad for p in parameters)
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(parameters, args.clip_grad).item()
    if math.isfinite(norm):
        totals["grad_norm"] = norm
    elif not scaler.is_enabled():  # a scaler leaves the step out and lowers its scale
        raise UserError(f"step {step + 1}: the gradient is not finite; {NOT_FINITE_MEND}")
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return totals


def find_root(args: argparse.Namespace) -> Path:
    """Where the training videos are; `args.basepath` then says so, and with it every checkpoint."""
    if args.dataset == OWN_VIDEO and args.basepath is None:
        raise UserError("--basepath is missing; give the folder of videos to train on")
    args.basepath = str(root_of(args.dataset, davis_path=None, basepath=args.basepath, davis_flag="--basepath")[0])
    return Path(args.basepath)


def find_videos(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Frames of every training video."""
    root = find_root(args)
    if args.dataset == OWN_VIDEO:
        return index_videos(root, train_list=args.train_list)
    return training_videos(args.dataset, root, train_list=args.train_list)


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


def starting_blocks(
    args: argparse.Namespace, network: SpatioTemporalNetwork, resumed: dict | None
) -> torch.nn.ModuleList | None:
    """A frozen copy of the blocks as training began; None where --anchor_weight ties nothing to them."""
    if not args.anchor_weight:
        return None
    start = copy.deepcopy(network.blocks).eval().requires_grad_(False)
    if resumed:
        if not isinstance(resumed.get("start"), dict):
            raise UserError("--anchor_weight: the run to resume has none; start anew from its weights with --init_path")
        start.load_state_dict(resumed["start"])
    return start


def make_optimizer(network: SpatioTemporalNetwork, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW on the blocks; weight decay on matrices only."""
    parameters = list(network.blocks.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


def make_loader(args: argparse.Namespace, videos: dict[str, list[Path]], first_step: int) -> DataLoader:
    dataset = ClipDataset(
        videos, resolution=tuple(args.resolution), num_frames=args.num_frames, gap=args.gap, seed=args.seed
    )
    sampler = StepSampler(
        start_step=first_step, num_steps=args.num_train_steps, clips_per_step=clips_per_step(args),
        rank=distributed.rank(), world_size=distributed.world_size(), repeat=args.overfit,
    )  # fmt: skip
    return DataLoader(
        dataset, batch_size=args.batch_size, sampler=sampler, num_workers=args.num_workers, collate_fn=collate_clips,
        persistent_workers=args.num_workers > 0, worker_init_fn=leave_to_parent,
    )  # fmt: skip


def make_profiler(args: argparse.Namespace) -> torch.profiler.profile | None:
    """Of the main process with --profile: a trace of its steps 3 to 5, for chrome://tracing or ui.perfetto.dev."""
    if not args.profile or not distributed.is_main():
        return None
    folder = Path(args.output_path) / "profile"
    profiler = torch.profiler.profile(
        activities=torch.profiler.supported_activities(),
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=PROFILED_STEPS, repeat=1),
        on_trace_ready=torch.profiler.tensorboard_trace_handler(str(folder)),
        record_shapes=True,
    )
    profiler.start()
    return profiler


def clips_per_step(args: argparse.Namespace) -> int:
    return args.batch_size * args.accumulate * distributed.world_size()


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine from --lr to --min_lr over the whole run."""
    if step < args.warmup_steps:
        return args.lr * (step + 1) / args.warmup_steps
    progress = (step - args.warmup_steps) / max(args.num_train_steps - args.warmup_steps, 1)
    return args.min_lr + (args.lr - args.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def make_watch(
    args: argparse.Namespace, network: SpatioTemporalNetwork, videos: dict[str, list[Path]], bad_frames: BadFrames
) -> Watch:
    """Looks at --watch_clips fixed training clips; stops the run where one cannot be read."""
    dataset = ClipDataset(
        videos, resolution=tuple(args.resolution), num_frames=WATCH["num_frames"], gap=args.gap, seed=args.seed,
        augment=False,
    )  # fmt: skip
    clips = [dataset[index] for index in range(args.watch_clips)]
    for clip in clips:
        bad_frames.add(clip)
    return Watch(network, [clip.frames for clip in clips], key_stride=WATCH["key_stride"], tau=args.tau)


if __name__ == "__main__":
    run_main(main)
