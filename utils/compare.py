"""Compare two folders of results, scored by the same protocol or not scored, sequence by sequence.

    python -m utils.compare outputs/a outputs/b --protocol davis --picture outputs/a_or_b.png
    python -m utils.compare outputs/a outputs/b --html outputs/a_or_b

A and B are folders that eval.py or utils.scoring has scored, or the --scores_path of the latter. Sequences that only
one of them has are left out, with a note. Differences are B minus A. The interval comes from a paired bootstrap over
sequences. If it does not contain zero, the difference is unlikely to come from the choice of sequences; other seeds or
datasets may still give another result. --html makes pages of the reports of A and B: open its index.html.

Where neither has scores, as of clips of your own, the agreement of their masks is shown instead.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.compare import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.agreement import MEANINGS, list_videos, measure_agreements
from utils.errors import UserError, run_main
from utils.flags.compare import parse_args
from utils.report.pages import write_comparison
from utils.report.place import check_report_folder
from utils.scoring.bootstrap import LEVEL, Interval, bootstrap_difference, bootstrap_interval
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.tables import Scores, find_scores
from utils.visual import save_figure


class Comparison(NamedTuple):
    """A measure of each sequence in A and B, each (sequences,) float in [0, 1], and the intervals of their means."""

    sequences: list[str]
    first: np.ndarray
    second: np.ndarray
    first_interval: Interval
    second_interval: Interval
    difference: Interval


def keep_common_sequences(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    """Remove the sequences that only one of two sets of scores has.

    Raises:
        UserError: they have no sequence in common.
    """
    names = {sequence.sequence for sequence in first.sequences} & {one.sequence for one in second.sequences}
    if not names:
        raise UserError(f"{first.sequences[0].sequence}: scored in the first only, and no sequence in both; score both "
                        "on the same ones")  # fmt: skip
    kept = ([one for one in scores.sequences if one.sequence in names] for scores in (first, second))
    return tuple(replace(scores, sequences=tuple(k)) for scores, k in zip((first, second), kept, strict=True))


def compare_scores(first: Scores, second: Scores, *, measure: str) -> Comparison:
    """Compare one measure of two sets of scores on the sequences that they have in common.

    Raises:
        UserError: they have no common sequence, other options or ground truth, or not this measure.
    """
    first, second = keep_common_sequences(first, second)
    names = [sequence.sequence for sequence in first.sequences]
    order = {sequence.sequence: k for k, sequence in enumerate(second.sequences)}
    if first.options != second.options:
        raise UserError(f"scored with other options ({first.options}, {second.options}); score both alike")
    truth, other = first.ground_truth, second.ground_truth
    if changed := sorted(k for k in names if k in truth and other.get(k, truth[k]) != truth[k]):
        raise UserError(f"{changed[0]}: scored against another ground truth in either; score both against one")
    if not first.measures():
        raise UserError(f"--protocol {first.protocol}: its measures are no means over sequences; compare by another")
    if measure not in first.measures():
        raise UserError(f"--measure {measure}: choose from {', '.join(first.measures())}")
    (a, weights), (b, weights_b) = (scores.measures()[measure] for scores in (first, second))
    b, weights_b = (values[[order[name] for name in names]] for values in (b, weights_b))
    known = (weights > 0) & (weights_b > 0)
    if known.sum() < 2:
        raise UserError(f"--measure {measure}: known of {known.sum()} sequences; at least 2 are needed")
    names = [name for name, keep in zip(names, known, strict=True) if keep]
    a, b, weights = a[known], b[known], weights[known]
    return Comparison(
        names, a / weights, b / weights, bootstrap_interval(a, weights), bootstrap_interval(b, weights),
        bootstrap_difference(a, b, weights),
    )  # fmt: skip


def note_left_out(a: list[str], b: list[str]) -> None:
    """Note on stderr which sequences only one of two results has, given the names of those of each."""
    alone = {"A": [name for name in a if name not in b], "B": [name for name in b if name not in a]}
    parts = [f"{len(names)} of {side} alone ({', '.join(names[:5])}{', ...' * (len(names) > 5)})"
             for side, names in alone.items() if names]  # fmt: skip
    if parts:
        count = len(a) - len(alone["A"])
        print(f"note: compared on the {count} common sequences, without {' and '.join(parts)}", file=sys.stderr)


def print_comparison(compared: Comparison, labels: tuple[str, str]) -> None:
    """Print a line per sequence, in percent, and the means with their intervals."""
    width = max(map(len, [*compared.sequences, "sequence"]))
    print(f"A = {labels[0]}\nB = {labels[1]}\n{'sequence':<{width}}      A      B    B-A")
    for name, a, b in zip(compared.sequences, compared.first, compared.second, strict=True):
        print(f"{name:<{width}}  {100 * a:5.1f}  {100 * b:5.1f}  {100 * (b - a):+5.1f}")
    better = int((compared.second > compared.first).sum())
    worse = int((compared.second < compared.first).sum())
    print(f"B is better on {better}, worse on {worse} of {len(compared.sequences)} sequences")
    named = {"A": compared.first_interval, "B": compared.second_interval, "B-A": compared.difference}
    for name, (value, low, high) in named.items():
        sign = "+" if name == "B-A" else ""
        print(f"{name:<3}  {100 * value:{sign}.1f}, {LEVEL:.0%} bootstrap interval over sequences: "
              f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}")  # fmt: skip


def draw_comparison(compared: Comparison, labels: tuple[str, str], measure: str, picture: Path) -> None:
    """Draw the two values of each sequence joined by a line, sorted by their difference."""
    from matplotlib.figure import Figure  # slow to import

    order = np.argsort(compared.second - compared.first)
    figure = Figure(figsize=(7, 1.5 + 0.25 * len(order)), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(order))
    a, b = 100 * compared.first[order], 100 * compared.second[order]
    axis.hlines(rows, np.minimum(a, b), np.maximum(a, b), color=np.where(b >= a, "tab:green", "tab:red"), linewidth=2)
    axis.plot(a, rows, "o", color="0.6", label=f"A: {labels[0]}")
    axis.plot(b, rows, "o", color="k", markersize=5, label=f"B: {labels[1]}")
    axis.set_yticks(rows, [compared.sequences[k] for k in order])
    axis.set_xlabel(f"{measure}, %")
    value, low, high = (100 * x for x in compared.difference)
    axis.set_title(f"B - A = {value:+.1f} [{low:+.1f}, {high:+.1f}]", fontsize=10)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8)
    save_figure(figure, picture, dpi=110)


def write_pages(compared: Comparison, results: Sequence[Path], measure: str, protocol: str, folder: Path) -> Path:
    """Write pages that show the videos of A and B beside each other, the largest differences first.

    Raises:
        UserError: A or B has no report of these videos, or `folder` holds something else; see `write_comparison`.
    """
    values = {
        name: {"A": float(a), "B": float(b), "difference": float(b - a)}
        for name, a, b in zip(compared.sequences, compared.first, compared.second, strict=True)
    }
    names = sorted(values, key=lambda name: -abs(values[name]["difference"]))
    hint = f"{measure}, protocol {protocol}: {PROTOCOLS[protocol].meaning}"
    columns = [{"key": side, "label": side, "hint": hint, "kind": "percent"} for side in "AB"]
    columns.append({"key": "difference", "label": "B − A", "hint": hint, "kind": "difference"})
    intervals = {"A": compared.first_interval, "B": compared.second_interval, "B − A": compared.difference}
    facts = [
        [name, f"{100 * value:{sign}.1f}", f"{LEVEL:.0%} interval {100 * low:{sign}.1f} to {100 * high:{sign}.1f}"]
        for (name, (value, low, high)), sign in zip(intervals.items(), ("", "", "+"), strict=True)
    ]
    better = int((compared.second > compared.first).sum())
    facts.append(["B is better on", str(better), f"of {len(names)} videos"])
    return write_comparison(
        folder, results, names, columns=columns, values=values, facts=facts, notes=[hint], sort="difference",
        descending=True,
    )  # fmt: skip


def is_scored(results: Path) -> bool:
    """Tell whether a folder of results, or the folder of a kind of predictions in it, has scores."""
    return any(next(results.glob(f"{place}scores/*/scores-*.json"), None) for place in ("", "*/"))


def compare_unscored(results: Sequence[Path], folder: Path | None) -> None:
    """Print how far the masks of two results agree, and write pages to `folder` if given, those that differ most first.

    Raises:
        UserError: as `measure_agreements` and `write_comparison`.
    """
    found = measure_agreements(results)
    note_left_out(*list_videos(results))
    measures = [measure for measure in MEANINGS if any(measure in values for values in found.values())]
    width = max(map(len, [*found, "sequence"]))
    meanings = [f"Agreement of {measure}: {MEANINGS[measure]}" for measure in measures]
    print(f"No scores, so this is not quality but agreement, in percent\nA = {results[0]}\nB = {results[1]}")
    print("\n".join([*meanings, "  ".join([f"{'sequence':<{width}}", *(f"{name:>10}" for name in measures)])]))
    means = {name: float(np.mean([each[name] for each in found.values() if name in each])) for name in measures}
    for name, values in {**found, "mean": means}.items():
        print("  ".join([f"{name:<{width}}", *(f"{100 * values[each]:10.1f}" for each in measures if each in values)]))
    if folder is None:
        return
    columns = [
        {"key": name, "label": name.capitalize(), "hint": MEANINGS[name], "kind": "percent"} for name in measures
    ]
    facts = [
        [f"Agreement of {name}", f"{100 * value:.1f}", f"mean of {len(found)} videos"] for name, value in means.items()
    ]
    notes = ["Not scored: there is no ground truth. Figures say how far A and B agree, not which is better.",
             *meanings]  # fmt: skip
    page = write_comparison(folder, results, list(found), columns=columns, values=found, facts=facts, notes=notes,
                            sort=measures[0], descending=False)  # fmt: skip
    print(f"report: {page}")


def main() -> None:
    args = parse_args(__doc__)
    if args.html:
        check_report_folder(args.html, [args.a, args.b], flag="--html")
    if not (args.protocol or args.measure or args.picture or is_scored(args.a) or is_scored(args.b)):
        return compare_unscored((args.a, args.b), args.html)
    args.protocol = args.protocol or "davis"
    first, second = (find_scores(path, args.protocol, args.split) for path in (args.a, args.b))
    note_left_out(*([sequence.sequence for sequence in scores.sequences] for scores in (first, second)))
    measure = args.measure or first.headline
    compared = compare_scores(first, second, measure=measure)
    print(f"{measure} under protocol {args.protocol}: {PROTOCOLS[args.protocol].meaning}")
    print_comparison(compared, (str(args.a), str(args.b)))
    if args.picture:
        draw_comparison(compared, (str(args.a), str(args.b)), measure, args.picture)
        print(f"picture: {args.picture}")
    if args.html:
        page = write_pages(compared, (args.a, args.b), measure, args.protocol, args.html)
        print(f"report: {page}")


if __name__ == "__main__":
    run_main(main)
