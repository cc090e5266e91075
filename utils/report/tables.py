"""Format the scores of results as a Markdown table, and their costs as a text table."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_object
from utils.names import natural_key
from utils.predictions import MEND
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.tables import align_columns

STAGE_GROUPS = {  # columns of tables
    "motion": ("motion",),
    "backbone": ("backbone",),
    "clustering": ("attention", "stage 1", "stage 2", "assign"),
    "objects": ("objects",),
    "upsampling": ("upsample",),
    "files": ("decode", "draw", "write"),
}


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
    """Format the length, labels and seconds of every video of one folder of results.

    All stages stand in stats/<video>.json; here they are grouped.
    """
    paths = sorted((folder / "stats").glob("*.json"), key=lambda path: natural_key(path.name))
    stats = {path.stem: read_object(path, mend=MEND) for path in paths}
    if not stats:
        raise UserError(f"--results {folder}: holds no statistics of eval.py")
    rows = [["cost", "frames", "clusters", "objects", "s/frame:", *STAGE_GROUPS, "all"]]
    rows += [[name, *_format_cost(entry)] for name, entry in stats.items()]
    total: dict[str, Any] = {"frames": sum(entry["frames"] for entry in stats.values())}
    for counted in ("clusters", "objects"):
        total[counted] = sum(entry.get(counted) or 0 for entry in stats.values()) / len(stats)
    stages = {stage for entry in stats.values() for stage in entry["seconds"]}
    total["seconds"] = {stage: sum(e["seconds"].get(stage, 0.0) for e in stats.values()) for stage in stages}
    rows.append(["all", *_format_cost(total)])
    peak = max(entry["peak_memory_gb"] for entry in stats.values())
    return "\n".join([*align_columns(rows), f"peak memory of the process: {peak:.2f} GB"])


def _format_cost(entry: dict[str, Any]) -> list[str]:
    """Format the cells of a video: frames, clusters, objects, and seconds a frame by group of stages and in all."""
    counts = [f"{entry.get(counted) or 0:.1f}".removesuffix(".0") for counted in ("clusters", "objects")]
    seconds, frames = entry["seconds"], entry["frames"]
    groups = [sum(seconds.get(stage, 0.0) for stage in group) for group in STAGE_GROUPS.values()]
    return [str(frames), *counts, "", *(f"{each / frames:.3f}" for each in [*groups, sum(groups)])]


def _mean(content: dict[str, Any], sequence: str, measure: str) -> float:
    objects = content["sequences"].get(sequence, {}).get(measure, [])
    return sum(statistics[0] for statistics in objects) / len(objects) if objects else float("nan")


def _format_cell(j: float, f: float) -> str:
    return f"{100 * j:.1f} / {100 * f:.1f} / {50 * (j + f):.1f}"
