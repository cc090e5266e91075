"""What a run took, as a table; a training log as a picture.

python -m utils.report --log outputs/train/log.jsonl --picture curve.png
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import UserError, run_main
from utils.logs import read_log

STAGES = ("decode", "backbone", "attention", "clustering", "write")


def print_costs(stats: dict[str, dict[str, Any]], out: Callable[[str], None] = print) -> None:
    """A line per video: clusters, seconds per frame of every stage; peak memory. stats: video -> its statistics."""
    width = max(len("sequence"), *map(len, stats))
    out(f"{'sequence':<{width}}  frames  clusters  " + "  ".join(f"{stage:>10}" for stage in STAGES))
    for video, entry in stats.items():
        per_frame = [entry["seconds"].get(stage, 0.0) / entry["frames"] for stage in STAGES]
        times = "  ".join(f"{seconds:8.3f} s" for seconds in per_frame)
        out(f"{video:<{width}}  {entry['frames']:>6}  {entry['clusters']:>8}  {times}")
    frames = sum(entry["frames"] for entry in stats.values())
    means = [sum(entry["seconds"].get(stage, 0.0) for entry in stats.values()) / frames for stage in STAGES]
    clusters = sum(entry["clusters"] for entry in stats.values()) / len(stats)
    peak = max(entry["peak_memory_gb"] for entry in stats.values())
    times = "  ".join(f"{seconds:8.3f} s" for seconds in means)
    out(f"{'per frame':<{width}}  {frames:>6}  {clusters:>8.1f}  {times}")
    out(f"peak memory of the process: {peak:.2f} GB")


def draw_log(log: Path, picture: Path) -> None:
    """Losses, clusters per clip and attention entropy over the steps of a training log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not log.is_file():
        raise UserError(f"--log {log}: no such file; give the log.jsonl in an --output_path of train.py")
    records = read_log(log)
    panels = (("loss_semantic", "loss_motion"), ("clusters_per_clip",), ("attention_entropy",), ("grad_norm",))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3), constrained_layout=True)
    for axis, names in zip(axes, panels, strict=True):
        for name in names:
            points = [(record["step"], record[name]) for record in records if name in record]
            axis.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1)
        axis.set_xlabel("step")
        axis.set_ylim(bottom=0)
        axis.legend()
        axis.grid(alpha=0.3)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a training log.")
    parser.add_argument("--log", type=Path, required=True, help="log.jsonl of a training run")
    parser.add_argument("--picture", type=Path, required=True, help="where the picture goes (.png)")
    args = parser.parse_args()
    draw_log(args.log, args.picture)


if __name__ == "__main__":
    run_main(main)
