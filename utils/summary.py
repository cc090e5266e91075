"""Compare folders of results in a table: a row for each, with settings that differ, scores, labels and seconds.

    python -m utils.summary --results outputs/ablation/*
    python -m utils.summary --results outputs/resolution/* --picture resolution.png

The differing settings are read from the folders. Intervals come from a bootstrap over sequences. Seconds are those of
the run, and missing for the backbone if features came from a cache. The picture shows J&F and, if none are missing,
seconds of results that differ in resolution.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.summary import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError, run_main
from utils.files import read_object
from utils.flags.summary import parse_args
from utils.predictions import MEND
from utils.report.tables import STAGE_GROUPS
from utils.scoring.tables import find_scores
from utils.visual import save_figure

PROTOCOLS = ("davis", "paper", "foreground")
OFFSET = 0.06  # between the points of protocols in the picture, in steps from one resolution to the next
NOT_COMPARED = ("predictions", "origin")  # settings that are not compared: kinds of PNGs, versions


@dataclass(frozen=True)
class Row:
    """One folder of results.

    Attributes:
        settings: settings of the predictions, without `NOT_COMPARED`.
        scored: protocol -> options and ground truth of the scores; figures can be compared if these are equal.
        scores: protocol -> J, F, J&F and the ends of its interval, in percent; the ends are NaN for one sequence.
        labels: mean number of objects a video, or of clusters if no objects were made.
        seconds: stage of `STAGE_GROUPS` -> seconds a frame; None for the backbone if features came from a cache.
    """

    name: str
    settings: dict[str, Any]
    scored: dict[str, tuple]
    scores: dict[str, tuple[float, float, float, float, float]]
    labels: float
    seconds: dict[str, float | None]


def read_row(folder: Path, *, split: str = "*") -> Row:
    """Read one folder of results.

    Raises:
        UserError: it has no results of eval.py or no scores by `PROTOCOLS`, or other videos were scored than segmented.
    """
    try:
        settings = read_object(folder / "settings.json", mend=MEND)
        stats = [read_object(path, mend=MEND) for path in sorted((folder / "stats").glob("*.json"))]
        frames = sum(entry["frames"] for entry in stats)
        seconds = {
            name: sum(entry["seconds"].get(stage, 0.0) for entry in stats for stage in stages) / frames
            for name, stages in STAGE_GROUPS.items()
        }
        if any(entry["cached"] for entry in stats):
            seconds["backbone"] = None
        labels = sum(entry["objects"] or entry["clusters"] for entry in stats) / len(stats)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; give --results a --save_path of eval.py") from error
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}); give a --save_path of eval.py"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"--results {folder}: stats/ is empty or not as eval.py writes it; {MEND}") from error
    videos = {path.stem for path in (folder / "stats").glob("*.json")}
    scored, scores = {}, {}
    for protocol in PROTOCOLS:
        if not any(folder.glob(f"**/scores/{protocol}/scores-*.json")):
            continue
        found = find_scores(folder, protocol, split)
        if videos != (names := {sequence.sequence for sequence in found.sequences}):
            raise UserError(f"--results {folder}: {min(videos ^ names)} is segmented or scored only; score all anew")
        summary, interval = found.summary(), found.interval("J&F-Mean")
        ends = interval[1:] if interval else (math.nan, math.nan)
        scored[protocol] = (found.options, found.ground_truth)
        scores[protocol] = tuple(100 * x for x in (*(summary[f"{m}-Mean"] for m in ("J", "F", "J&F")), *ends))
    if not scored:
        raise UserError(f"--results {folder}: holds no scores by {', '.join(PROTOCOLS)}; run eval.py first")
    return Row(
        folder.name, {k: v for k, v in settings.items() if k not in NOT_COMPARED}, scored, scores, labels, seconds
    )


def find_differing_settings(rows: list[Row]) -> list[str]:
    """List the settings that are not equal in all rows, in the order of the first row."""
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    return [name for name in names if any(row.settings.get(name) != rows[0].settings.get(name) for row in rows)]


def check_comparable(rows: list[Row]) -> None:
    """Raise `UserError` if two rows were scored by one protocol on other sequences or with other options."""
    first: dict[str, Row] = {}
    for row in rows:
        for protocol, scored in row.scored.items():
            if scored != first.setdefault(protocol, row).scored[protocol]:
                names = f"{first[protocol].name} and {row.name}"
                raise UserError(
                    f"--results: {names} were scored by {protocol} on other sequences or with other options"
                )


def format_markdown(rows: list[Row]) -> str:
    """Format a table: differing settings, J / F / J&F with its interval by protocol, labels, seconds a frame."""
    names, protocols = (
        find_differing_settings(rows),
        [name for name in PROTOCOLS if any(name in row.scores for row in rows)],
    )
    head = [*(names or ["results"]), *(f"`{name}`, J / F / J&F" for name in protocols), "labels"]
    head += [f"{name}, s/frame" for name in STAGE_GROUPS]
    lines = [
        f"| {' | '.join(head)} |",
        "|" + " --- |" * (len(head) - len(STAGE_GROUPS) - 1) + " ---: |" * (len(STAGE_GROUPS) + 1),
    ]
    for row in rows:
        cells = [_format_setting(row.settings.get(name)) for name in names] or [row.name]
        cells += [_format_scores(row.scores.get(name)) for name in protocols]
        cells += [f"{row.labels:.1f}", *("" if s is None else f"{s:.3f}" for s in row.seconds.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _format_setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _format_scores(values: tuple[float, ...] | None) -> str:
    if values is None:
        return ""
    j, f, both, low, high = values
    return f"{j:.1f} / {f:.1f} / {both:.1f}" + ("" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]")


def check_drawable(rows: list[Row]) -> None:
    """Raise `UserError` if rows differ in more than the resolution."""
    if find_differing_settings(rows) != ["resolution"]:
        names = ", ".join(find_differing_settings(rows)) or "nothing"
        raise UserError(f"--picture: draws results that differ in resolution alone; these do in {names}")


def draw_resolutions(rows: list[Row], picture: Path) -> Any:
    """Draw J&F by protocol, and seconds a frame by stage (stacked), for rising resolutions; return the figure.

    Seconds are left out if a row has features from a cache.

    Args:
        rows: rows that pass `check_drawable`.
    """
    from matplotlib.figure import Figure  # slow to import

    rows = sorted(rows, key=lambda row: math.prod(row.settings["resolution"]))
    places = range(len(rows))
    timed = all(row.seconds["backbone"] is not None for row in rows)
    figure = Figure(figsize=(10 if timed else 5, 3.4), layout="constrained")
    quality, *cost = figure.subplots(1, 1 + timed, squeeze=False)[0]
    for number, protocol in enumerate(PROTOCOLS):
        known = [(x, row.scores[protocol]) for x, row in zip(places, rows, strict=True) if protocol in row.scores]
        if known:
            xs, values = zip(*known, strict=True)
            _, _, middle, low, high = np.array(values).T
            xs = np.array(xs) + OFFSET * (number - 1)  # so that intervals do not hide one another
            lengths = np.maximum([middle - low, high - middle], 0)  # a skewed interval may lie beside the mean
            quality.errorbar(xs, middle, lengths, marker=".", elinewidth=0.8, label=protocol)
    quality.set_ylabel("J&F (bars: 95 %, over sequences)")
    quality.set_ylim(bottom=0)
    for axis in cost:
        seconds = [[row.seconds[name] for row in rows] for name in STAGE_GROUPS]
        axis.stackplot(places, seconds, labels=STAGE_GROUPS, alpha=0.8)
        axis.set_ylabel("seconds a frame")
    sizes = ["x".join(map(str, row.settings["resolution"])) for row in rows]
    for axis in (quality, *cost):
        axis.set_xticks(places, sizes)
        axis.set_xlabel("resolution")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save_figure(figure, picture, dpi=90)
    return figure


def main() -> None:
    args = parse_args(__doc__)
    rows = [read_row(folder, split=args.split) for folder in args.results]
    check_comparable(rows)
    if args.picture:
        check_drawable(rows)
    print(format_markdown(rows))
    if args.picture:
        draw_resolutions(rows, args.picture)


if __name__ == "__main__":
    run_main(main)
