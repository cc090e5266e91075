"""Hold the scores of a dataset under one protocol; print them, write them as CSV and JSON, and read them again."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import check_writable, write_atomically
from utils.names import format_ranges
from utils.progress import log_line
from utils.run.provenance import SCORING, list_versions
from utils.scoring.bootstrap import LEVEL, Interval, bootstrap_interval
from utils.scoring.protocols import PROTOCOLS

SCORES = Path("outputs/scores")
MOST_NAMED = 5  # sequences in a note


@dataclass(frozen=True)
class Scores:
    """Scores of all sequences of a dataset under one protocol.

    Attributes:
        sequences: scores of each, in the order of the split.
        options: the fields of `evaluators.Options` that the protocol depends on.
        ground_truth: sequence -> hash of its ground truth.
    """

    protocol: str
    sequences: tuple
    options: dict[str, Any] = field(default_factory=dict)
    ground_truth: dict[str, str] = field(default_factory=dict)

    @property
    def without_objects(self) -> list[str]:
        """Sequences without any object, which are left out of the means."""
        each = self.measures().get(self.headline, ((), ()))[1]
        return [sequence.sequence for sequence, weight in zip(self.sequences, each, strict=False) if not weight]

    @property
    def headline(self) -> str:
        """Name of the protocol's main measure."""
        return PROTOCOLS[self.protocol].scores.HEADLINE

    def summary(self) -> dict[str, float]:
        """Compute every measure over the whole dataset, in [0, 1]. The protocol defines the weights of sequences."""
        family = PROTOCOLS[self.protocol].scores
        if hasattr(family, "pooled"):
            return family.pooled(self.sequences)
        return {
            name: float(sums.sum() / weights.sum()) if weights.any() else math.nan
            for name, (sums, weights) in self.measures().items()
        }

    def measures(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return measure -> (sums, weights), each (sequences,): the numerators and denominators of weighted means.

        Empty for protocols whose measures are not means over sequences.
        """
        if hasattr(PROTOCOLS[self.protocol].scores, "pooled"):
            return {}
        each = [sequence.measures() for sequence in self.sequences]
        return {name: tuple(np.array([values[name] for values in each], dtype=float).T) for name in each[0]}

    def interval(self, measure: str) -> Interval | None:
        """Compute the bootstrap interval of a measure; None for a single sequence or a measure that is no mean."""
        sums, weights = self.measures().get(measure, (np.empty(0), np.empty(0)))
        known = weights > 0
        return bootstrap_interval(sums[known], weights[known]) if known.sum() > 1 else None


def choose_scores_folder(results: Path, *, chosen: str | os.PathLike | None, flag: str) -> Path:
    """Choose the folder below which the scores of `results` are written.

    Args:
        chosen: the folder that the user gave with `flag`. Without it: `results` if eval.py wrote them, otherwise a
            folder in outputs/scores, since results of other programs are not changed.

    Raises:
        UserError: the folder cannot be written, or holds other results, whose scores these would be taken for.
    """
    if chosen is None and (results / "settings.json").is_file():
        return results
    folder = SCORES / results.resolve().name if chosen is None else Path(chosen)
    if (folder / "settings.json").is_file() and folder.resolve() != results.resolve():
        raise UserError(f"{flag} {folder}: holds other results, whose scores these would pass for; name another folder")
    check_writable(folder, flag=flag)
    return folder


def write_scores(
    scores: Scores, results: str | os.PathLike, *, split: str, provenance: dict[str, Any] | None = None
) -> Path:
    """Write `scores` to `<results>/scores/<protocol>/` and return that folder.

    `global_results-<split>.csv` and `per-sequence_results-<split>.csv` have the DAVIS toolkit's names, columns and
    three decimals. `scores-<split>.json` has everything in full precision, with options, hashes of the ground truth,
    `provenance` (config and checkpoint hash of the results) and the versions of the libraries used.
    """
    folder = Path(results) / "scores" / scores.protocol
    summary, family = scores.summary(), PROTOCOLS[scores.protocol].scores
    rows = [row for sequence in scores.sequences for row in sequence.csv_rows()]
    _write_text(folder / f"global_results-{split}.csv", _csv(tuple(summary), [tuple(summary.values())]))
    _write_text(folder / f"per-sequence_results-{split}.csv", _csv(family.CSV_COLUMNS, rows))
    _write_text(folder / f"scores-{split}.json", _json(_as_dict(scores, split, provenance)))
    return folder


def read_scores(path: Path) -> Scores:
    """Read the scores in a `scores-<split>.json` of `write_scores`.

    Raises:
        UserError: the file is damaged, or holds no scores.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        read = PROTOCOLS[content["protocol"]].scores.from_json
        sequences = tuple(read(name, values) for name, values in content["sequences"].items())
        scores = Scores(content["protocol"], sequences, dict(content["options"]), dict(content["ground_truth"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not scores of this program ({error!r}); score the results again") from error
    if not sequences:
        raise UserError(f"{path}: holds no sequence; score the results again")
    return scores


def find_scores(results: Path, protocol: str, split: str = "*") -> Scores:
    """Find and read the scores in a folder of results, or in its subfolder for the protocol's kind of predictions.

    Raises:
        UserError: there are no scores, or those of several splits.
    """
    places = [results, results / PROTOCOLS[protocol].predictions]
    found = [path for place in places for path in sorted((place / "scores" / protocol).glob(f"scores-{split}.json"))]
    if not found:
        raise UserError(f"{results}: no scores under {protocol}; score it first (eval.py, or python -m utils.scoring)")
    if len(found) > 1:
        names = ", ".join(path.stem.removeprefix("scores-") for path in found)
        raise UserError(f"{results}: scores of several splits ({names}); name one with --split")
    return read_scores(found[0])


def print_table(scores: Scores, out: Callable[[str], None] = print) -> None:
    """Print a line per sequence and the global row, in percent, headed by the protocol and what it means."""
    out(f"protocol {scores.protocol}: {PROTOCOLS[scores.protocol].meaning}")
    rows = {sequence.sequence: sequence.table_row() for sequence in scores.sequences}
    rows[PROTOCOLS[scores.protocol].scores.TOTAL] = PROTOCOLS[scores.protocol].scores.total_row(scores)
    for line in _columns(rows):
        out(line)
    out("  ".join(f"{name} {100 * value:.1f}" for name, value in scores.summary().items()))
    if scores.without_objects:
        out(f"without objects, left out of the means: {', '.join(scores.without_objects)}")
    if not (found := scores.interval(scores.headline)):
        return
    value, low, high = (100 * x for x in found)
    count = len(scores.sequences) - len(scores.without_objects)
    out(f"{scores.headline} {value:.1f}, {LEVEL:.0%} bootstrap interval over {count} sequences: "
        f"{low:.1f} to {high:.1f}")  # fmt: skip


def note_id_gaps(scored: Iterable[Scores]) -> None:
    """Note on stderr which sequences have gaps in their object ids, which count as objects that are never found."""
    counting = [scores for scores in scored if any(getattr(one, "absent", ()) for one in scores.sequences)]
    if not counting:
        return
    gaps = {one.sequence: one for one in counting[0].sequences if one.absent}
    named = []
    for name, one in list(gaps.items())[:MOST_NAMED]:
        present = sorted(set(range(1, len(one.j) + 1)) - set(one.absent))
        named.append(f"{name} (ids {format_ranges(present, most=8)}: {len(one.j)} objects counted)")
    more = f" and {len(gaps) - MOST_NAMED} more" * (len(gaps) > MOST_NAMED)
    protocols = ", ".join(scores.protocol for scores in counting)
    log_line(
        f"note: {protocols}: gaps in the object ids of {', '.join(named)}{more}; as in the DAVIS toolkit each id up to "
        "the highest counts as an object, found or not; renumber the ground truth from 1 without gaps"
    )


def print_side_by_side(scored: Sequence[Scores]) -> None:
    """Print the headline measure of every sequence under several protocols, a column each, in percent."""
    if len(scored) < 2:
        return
    print("side by side (" + ", ".join(f"{scores.protocol}: {scores.headline}" for scores in scored) + ")")
    rows: dict[str, dict[str, Any]] = {}
    for scores in scored:
        each = scores.measures().get(scores.headline, ())
        for sequence, total, weight in zip(scores.sequences, *each, strict=True) if each else ():
            rows.setdefault(sequence.sequence, {})[scores.protocol] = float(total / weight) if weight else math.nan
        rows.setdefault("all", {})
        rows["all"][scores.protocol] = scores.summary()[scores.headline]
    rows["all"] = rows.pop("all")  # last
    for line in _columns(rows):
        print(line)


def _columns(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Format a text table, a row for each name: floats in percent, other values as they are, None as nothing."""
    names = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [["sequence", *names]]
    cells += [[name, *(_cell(row.get(column)) for column in names)] for name, row in rows.items()]
    return align_columns(cells)


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the cells of a text table, the first column to the left and all others to the right: one line a row."""
    first, *others = ([column, max(map(len, column))] for column in zip(*rows, strict=True))
    columns = [[cell.ljust(first[1]) for cell in first[0]]]
    columns += [[cell.rjust(width) for cell in column] for column, width in others]
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def _csv(columns: Sequence[str], rows: Iterable[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{v:.3f}" if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue()


def _json(content: dict[str, Any]) -> str:
    """Indented JSON with the innermost lists, three numbers or so, on one line each."""
    text = json.dumps(content, indent=1)
    return re.sub(r"\[\n[^][{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _as_dict(scores: Scores, split: str, provenance: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "protocol": scores.protocol,
        "meaning": PROTOCOLS[scores.protocol].meaning,
        "split": split,
        "options": scores.options,
        "global": {name: None if math.isnan(value) else value for name, value in scores.summary().items()},
        "sequences": {sequence.sequence: sequence.to_json() for sequence in scores.sequences},
        "ground_truth": scores.ground_truth,
        "provenance": provenance or {},
        "versions": list_versions(SCORING),
    }


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
