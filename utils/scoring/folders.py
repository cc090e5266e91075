"""Score folders of label PNGs under several protocols, print the tables and write them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils import distributed
from utils.errors import UserError
from utils.scoring.annotations import Annotations
from utils.scoring.evaluators import Options
from utils.scoring.score import expand_protocol_names, score
from utils.scoring.tables import Scores, note_id_gaps, print_side_by_side, print_table, write_scores


def choose_protocols(names: Sequence[str] | None, known: Sequence[str], *, dataset: str) -> list[str]:
    """List the protocols that --protocol names, by default the first of the data set.

    Args:
        names: values of --protocol.
        known: protocols that fit the data set, the default first; none for videos without ground truth.

    Raises:
        UserError: a protocol does not fit. With merged objects, for one, `davis` would choose the best cluster with the
            ground truth.
    """
    chosen = expand_protocol_names(names or known[:1], known) or ["davis"]
    if unfit := [name for name in chosen if known and name not in known]:
        raise UserError(f"--protocol {unfit[0]}: --dataset {dataset} is scored by {', '.join(known)}")
    return chosen


def score_folders(
    folders: dict[str, Path], annotations: dict[str, Annotations], *, options: Options, split: str,
    provenance: dict[str, Any], scores_path: Path | None = None, workers: int | None = None,
) -> None:  # fmt: skip
    """Score label PNGs under each protocol, print its table and write its scores.

    Every process scores its share of the sequences; the main process alone prints and writes.

    Args:
        folders: protocol -> folder of its PNGs, `<folder>/<sequence>/<frame>.png`; those of one folder are read once.
        annotations: ground truth of every sequence.
        split: names the files of scores.
        provenance: what the PNGs were made with, recorded with the scores.
        scores_path: folder below which scores are written; if not given, the folder of the PNGs.
        workers: processes for scoring; one per core if not given.
    """
    scored: dict[str, Scores] = {}
    for folder in dict.fromkeys(folders.values()):
        protocols = [name for name, place in folders.items() if place == folder]
        if distributed.is_main():
            print(f"scoring {len(annotations)} videos under {', '.join(protocols)}", file=sys.stderr, flush=True)
        scored |= score(
            folder, annotations, protocols=protocols, options=options, keep=True, workers=workers,
            scores_path=scores_path,
        )  # fmt: skip
    if not distributed.is_main():
        return
    for name, folder in folders.items():
        print_table(scored[name])
        written = write_scores(scored[name], scores_path or folder, split=split, provenance=provenance)
        print(f"written to {written}\n")
    note_id_gaps(scored.values())
    print_side_by_side([scored[name] for name in folders])
