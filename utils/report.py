"""Print scores and times of results as tables; draw a training log.

python -m utils.report --log outputs/train/log.jsonl --picture curve.png
python -m utils.report --results outputs/training_free outputs/trained            # Markdown, side by side
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.errors import OneLineParser, UserError, run_main
from utils.files import read_object
from utils.names import natural_key
from utils.run.logs import read_log
from utils.scoring.protocols import PROTOCOLS
from utils.visual import save_figure

MEND = "run eval.py again"
STAGES = ("decode", "motion", "backbone", "attention", "stage 1", "stage 2", "assign", "objects", "upsample", "write")
PANELS = ("clusters_per_clip", "mirror_agreement", "attention_entropy", "grad_norm")


def draw_log(log: Path, picture: Path) -> None:
    """Draw losses, clusters per clip, agreement with mirrored clips and attention entropy over the steps of a log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not log.is_file():
        raise UserError(f"--log {log}: no such file; give the log.jsonl in an --output_path of train.py")
    records = read_log(log)
    panels = [("loss_semantic", "loss_motion"), *((name,) for name in PANELS)]
    panels = [names for names in panels if any(name in record for record in records for name in names)]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3), constrained_layout=True)
    for axis, names in zip(axes, panels, strict=True):
        axis.margins(y=0.2)
        for name in names:
            points = [(record["step"], record[name]) for record in records if name in record]
            axis.plot(
                *zip(*points, strict=True),
                marker="." if len(points) < 20 else "",
                label=name.replace("_", " "),
                linewidth=1,
            )
        axis.set_xlabel("step")
        axis.set_ylim(bottom=0)
        axis.legend()
        axis.grid(alpha=0.3)
    save_figure(figure, picture, dpi=110)


def format_scores(results: list[Path]) -> str:
    """Format J, F and J&F in percent: a row for each sequence, a column for each folder of results and protocol.

    The mean over objects is the benchmark's figure; the mean over sequences is shown too, since some papers report it.
    """
    scored = {
        f"{folder}, {path.parent.name}, {path.stem.removeprefix('scores-')}": read_object(path, mend=MEND)
        for folder in results
        for path in _keep_object_scores(folder.glob("**/scores/*/scores-*.json"))
    }
    if not scored:
        raise UserError(f"--results {results[0]}: holds no scores; run eval.py or python -m utils.scoring first")
    lines = ["| J / F / J&F | " + " | ".join(scored) + " |", "| --- |" + " --- |" * len(scored)]
    sequences = dict.fromkeys(name for content in scored.values() for name in content["sequences"])
    for name in sequences:
        cells = [_format_cell(_mean(content, name, "J"), _mean(content, name, "F")) for content in scored.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    means = [
        [
            sum(_mean(content, name, measure) for name in content["sequences"]) / len(content["sequences"])
            for measure in "JF"
        ]
        for content in scored.values()
    ]
    lines.append("| mean of sequences | " + " | ".join(_format_cell(*mean) for mean in means) + " |")
    totals = [_format_cell(content["global"]["J-Mean"], content["global"]["F-Mean"]) for content in scored.values()]
    return "\n".join([*lines, "| **mean of objects** | " + " | ".join(f"**{cell}**" for cell in totals) + " |"])


def _keep_object_scores(paths: Iterable[Path]) -> list[Path]:
    """Return the files of scores that have J and F of objects."""
    return [path for path in sorted(paths) if PROTOCOLS[path.parent.name].scores.HEADLINE == "J&F-Mean"]


def format_costs(folder: Path) -> str:
    """Format clusters, objects, and seconds per frame and stage of every video of one folder of results."""
    paths = sorted((folder / "stats").glob("*.json"), key=lambda path: natural_key(path.name))
    stats = {path.stem: read_object(path, mend=MEND) for path in paths}
    if not stats:
        raise UserError(f"--results {folder}: holds no statistics of eval.py")
    lines = ["| | frames | clusters | objects | " + " | ".join(f"{stage}, s/frame" for stage in STAGES) + " |"]
    lines.append("| --- |" + " ---: |" * (3 + len(STAGES)))
    total = {"frames": 0, "clusters": 0, "objects": 0, "seconds": dict.fromkeys(STAGES, 0.0)}
    for name, entry in stats.items():
        lines.append(_format_cost_row(name, entry))
        total["frames"] += entry["frames"]
        for counted in ("clusters", "objects"):
            total[counted] += (entry.get(counted) or 0) / len(stats)
        for stage in STAGES:
            total["seconds"][stage] += entry["seconds"].get(stage, 0.0)
    lines.append(_format_cost_row("**all**", total))
    peak = max(entry["peak_memory_gb"] for entry in stats.values())
    return "\n".join([*lines, "", f"Peak memory of the process: {peak:.2f} GB."])


def _mean(content: dict[str, Any], sequence: str, measure: str) -> float:
    objects = content["sequences"].get(sequence, {}).get(measure, [])
    return sum(statistics[0] for statistics in objects) / len(objects) if objects else float("nan")


def _format_cell(j: float, f: float) -> str:
    return f"{100 * j:.1f} / {100 * f:.1f} / {50 * (j + f):.1f}"


def _format_cost_row(name: str, entry: dict[str, Any]) -> str:
    clusters, objects = (f"{entry.get(counted) or 0:.1f}".removesuffix(".0") for counted in ("clusters", "objects"))
    times = " | ".join(f"{entry['seconds'].get(stage, 0.0) / entry['frames']:.3f}" for stage in STAGES)
    return f"| {name} | {entry['frames']} | {clusters} | {objects} | {times} |"


def main() -> None:
    parser = OneLineParser(
        prog="python -m utils.report", description="Tables of results, or the picture of a training log."
    )
    parser.add_argument("--results", type=Path, nargs="+", help="folders that eval.py wrote, side by side")
    parser.add_argument("--log", type=Path, help="log.jsonl of a training run")
    parser.add_argument("--picture", type=Path, help="where the picture of --log goes (.png)")
    args = parser.parse_args()
    if bool(args.log) != bool(args.picture) or not (args.log or args.results):
        raise UserError("give --results FOLDER..., or --log FILE with --picture FILE")
    if args.log:
        draw_log(args.log, args.picture)
    try:
        tables = [format_scores(args.results)] if args.results else []
        tables += [f"{folder.name}:\n\n{format_costs(folder)}" for folder in args.results or ()]
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"--results: a file of scores or stats is damaged ({error!r}); {MEND}") from error
    if tables:
        print("\n\n".join(tables))


if __name__ == "__main__":
    run_main(main)
