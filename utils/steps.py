"""J&F and clusters per video against the steps of training, from folders of results: one table, one picture.

    python -m utils.steps --results outputs/steps/* --picture assets/steps.png

Each folder is of `eval.py --resume_path CHECKPOINT`, at `--tau auto` or a number: what it has says of which checkpoint,
and the checkpoint of which step of which run; nothing is typed in. Results of `--training_free` at a run's temperature
are its step 0, where it began at the identity. A row of panels per data set, a line per run and tau.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.stopping import exit_on_interrupt

    exit_on_interrupt()

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.checkpoint import file_hash, load_checkpoint
from utils.errors import UserError, run_main
from utils.json_files import read_object
from utils.score_files import read_scores
from utils.visual import save_figure

MEASURES = ("clusters", "davis", "paper")
TITLES = {"clusters": "clusters a video", "davis": "J&F, davis", "paper": "J&F, paper"}
FIXED, AUTO = "fixed tau", "tau auto"
MEND = "run eval.py again"


@dataclass(frozen=True)
class Point:
    """What one folder of results has.

    Attributes:
        dataset: folder and split.
        run: how its block began, and where it was trained; None where it is training-free.
        rule: whether tau is that of the checkpoint.
        temperature: s of the identity that the block began at; None of a random start.
        values: of `MEASURES` those there are; J&F in percent.
    """

    dataset: str
    run: str | None
    step: int
    tau: float
    rule: str
    temperature: float | None
    values: dict[str, float]


def read_point(folder: Path) -> Point:
    """Raises `UserError`: no scored results, or not those of the checkpoint that they name."""
    try:
        settings = read_object(folder / "settings.json", mend=MEND)
        stats = [read_object(path, mend=MEND) for path in sorted((folder / "stats").glob("*.json"))]
        files = {path.parent.name: path for path in sorted(folder.glob("**/scores/*/scores-*.json"))}
        values = {"clusters": sum(entry["clusters"] for entry in stats) / len(stats)}
        block, tau = settings["block"], settings["tau"]
        dataset = f"{Path(settings['root']).name} {settings['split']}"
    except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"--results {folder}: no results of eval.py ({error!r}); run it first") from error
    scores = {name: read_scores(files[name]) for name in MEASURES if name in files}
    if not scores:
        raise UserError(f"--results {folder}: holds no scores by davis or paper; run eval.py with --protocol both")
    values |= {name: 100 * found.summary()[found.headline] for name, found in scores.items()}
    if block["training_free"]:
        return Point(dataset, None, 0, tau, FIXED, block["temperature"], values)
    content = _checkpoint_of(folder, files[next(iter(scores))], block["sha256"])
    config, step = content.get("config"), content.get("step")
    if not isinstance(config, dict) or not isinstance(step, int):
        raise UserError(f"--results {folder}: its checkpoint names no step; it must be one of train.py")
    rule = AUTO if tau == content.get("tau_auto") else FIXED
    start = config.get("init")
    temperature = config.get("temperature") if start == "identity" else None
    run = f"{start} start, lr {config.get('lr')}, {config.get('output_path')}"
    return Point(dataset, run, step, tau, rule, temperature, values)


def _checkpoint_of(folder: Path, scores: Path, sha256: str) -> dict[str, Any]:
    """The checkpoint that the results of `folder` name, if it is still the same."""
    path: Any = read_object(scores, mend=MEND)
    for key in ("provenance", "origin", "checkpoint"):
        path = path.get(key) if isinstance(path, dict) else None
    if not isinstance(path, str) or not Path(path).is_file() or file_hash(path) != sha256:
        raise UserError(f"--results {folder}: its checkpoint {path} is gone or another; score it where it is")
    return load_checkpoint(path)


def curves(points: list[Point]) -> dict[str, dict[tuple[str, str], list[Point]]]:
    """Data set -> (run, rule for tau) -> points by step; a run from the identity has its training-free point too."""
    found: dict[str, dict[tuple[str, str], list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        if point.run is not None:
            found[point.dataset][point.run, point.rule].append(point)
    for point in points:
        if point.run is not None:
            continue
        fitting = [line for line in found[point.dataset].values() if line[0].temperature == point.temperature]
        if not fitting:
            raise UserError(f"--results: training-free ones of {point.dataset}, s = {point.temperature}, where no run "
                            "began; leave them out")  # fmt: skip
        for line in fitting:
            if line[0].rule == FIXED:
                line.append(point)
    for lines in found.values():
        for line in lines.values():
            line.sort(key=lambda point: point.step)
    return {dataset: dict(lines) for dataset, lines in found.items()}


def markdown(found: dict[str, dict[tuple[str, str], list[Point]]]) -> str:
    """A row per folder: data set, run, rule, step, tau, clusters a video, J&F."""
    lines = ["| data set | run | | step | tau | " + " | ".join(TITLES.values()) + " |"]
    lines.append("| --- | --- | --- |" + " ---: |" * (2 + len(TITLES)))
    for dataset, its in found.items():
        for (run, rule), points in its.items():
            for point in points:
                cells = [f"{point.values[name]:.1f}" if name in point.values else "" for name in MEASURES]
                lines.append(f"| {dataset} | {run} | {rule} | {point.step} | {point.tau:.3g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[str, dict[tuple[str, str], list[Point]]], picture: Path) -> None:
    """Panels: a row per data set, a column per measure; clusters on a logarithmic scale; auto tau dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(found), len(MEASURES), figsize=(4 * len(MEASURES), 2.6 * len(found)), constrained_layout=True,
        squeeze=False, sharex=True,
    )  # fmt: skip
    runs = list(dict.fromkeys(run for lines in found.values() for run, _ in lines))
    for row, (dataset, lines) in zip(axes, found.items(), strict=True):
        for axis, measure in zip(row, MEASURES, strict=True):
            for (run, rule), points in sorted(lines.items(), key=lambda item: (runs.index(item[0][0]), item[0][1])):
                known = [(point.step, point.values[measure]) for point in points if measure in point.values]
                axis.plot(
                    *zip(*known, strict=True), marker=".", color=f"C{runs.index(run)}", linewidth=1.2,
                    linestyle="--" if rule == AUTO else "-", label=f"{run.rpartition(',')[0]}, {rule}",
                )  # fmt: skip
            axis.set_title(f"{dataset}: {TITLES[measure]}", fontsize=9)
            axis.grid(alpha=0.3)
            if measure == "clusters":
                axis.set_yscale("log")
            else:
                axis.set_ylim(bottom=0)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    axes[0, 0].legend(fontsize=7)
    save_figure(figure, picture, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="folders that eval.py wrote")
    parser.add_argument("--picture", type=Path, help="where the picture goes (.png)")
    args = parser.parse_args()
    found = curves([read_point(folder) for folder in args.results])
    print(markdown(found))
    if args.picture:
        draw(found, args.picture)


if __name__ == "__main__":
    run_main(main)
