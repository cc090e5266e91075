"""Score label PNGs against ground truth, whoever wrote them.

    python -m utils.scoring --results results/ours --davis_path /data/DAVIS --protocol davis paper

`<results>/<sequence>/<frame>.png` is scored against `<annotations>/<sequence>/<frame>.png` under one or more named
protocols (docs/method.md, section 6; `utils.scoring.protocols`):

- `davis`: one Hungarian assignment per sequence, at most 20 proposals: the official DAVIS-2017-Unsupervised
  protocol. Its numbers can be compared with other methods'.
- `paper`: a new Hungarian assignment in every frame, any number of proposals: how the paper's released
  numbers were scored. Identity over time is not scored: on the same PNGs, J&F is never below `davis`.
- `foreground`: every proposal together against all objects together. `oracle`: the same with the best union of
  proposals, chosen with the ground truth.
- `slots`: FG-ARI, ARI, mBO and mIoU (`slots.py`). `tracks`: class-agnostic AP and AR (`tracks.py`).

Other data sets than those in the layout of DAVIS: `python eval.py --predictions results/ours --dataset NAME`.

Tables go to `scores/<protocol>/` below `--scores_path`; if that is not given, below the results where eval.py wrote
these, and else below `outputs/scores/<name of the results>`: folders of others are left as they are. A sequence's
scores are kept there in `sequences/`, with a hash of every PNG and of the ground
truth they came from: an interrupted scoring goes on where it was, and scores of other files are never taken. Of a
sequence only one frame is in memory at a time, beside a table of its J and F. Under torchrun every process scores its
share.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import exit_on_interrupt

    exit_on_interrupt()

import argparse
import os
import sys
from pathlib import Path

from utils import distributed
from utils.errors import OneLineParser, UserError, run_main
from utils.names import names_in, natural_key
from utils.png import pngs_by_stem
from utils.scoring.annotations import Annotations, label_folder
from utils.scoring.label_checks import check_labels
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.score import (
    _mend_annotations,
    _mend_root,
    add_score_options,
    expand,
    read_provenance,
    score,
    score_options,
)
from utils.scoring.tables import note_gaps, print_side_by_side, print_table, scores_folder, write_scores


def _parse_args() -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m utils.scoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="one folder of PNGs per sequence")
    parser.add_argument("--davis_path", type=Path, required=True, help="root of the DAVIS dataset")
    parser.add_argument(
        "--protocol", nargs="+", choices=[*PROTOCOLS, "both", "all"], default=["davis"],
        help="a table for each; both: davis and paper, all: every one",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", default="Annotations_unsupervised/480p", help="annotations, relative to --davis_path"
    )
    parser.add_argument(
        "--split_file", default="ImageSets/2017/val.txt", help="sequences to score, relative to --davis_path"
    )
    parser.add_argument("--scores_path", type=Path, help="folder below which tables go, and what is kept of sequences")
    add_score_options(parser.add_argument)
    parser.add_argument("--workers", type=int, help="processes at most; all cores if not given")
    return parser.parse_args()


def main() -> None:
    """Score, print and write, as the module's docstring says."""
    args = _parse_args()
    split_file = args.davis_path / args.split_file
    if not split_file.is_file():
        raise UserError(f"{split_file}: no such split file; {_mend_root(args)}")
    truth = args.davis_path / args.annotations
    sequences = names_in(split_file, is_name=lambda line: os.path.isdir(truth / line))
    provenance = read_provenance(args.results)
    scores_path = scores_folder(args.results, told=args.scores_path, flag="--scores_path")
    if not truth.is_dir():
        raise UserError(f"{truth}: no such folder; {_mend_annotations(args)}")
    annotations = {name: label_folder(truth / name) for name in sequences}
    _note_unscored(args.results, annotations)
    protocols = expand(args.protocol, tuple(PROTOCOLS))
    annotations = check_labels(annotations, protocols)
    distributed.start()
    try:
        scored = score(
            args.results, annotations, protocols=protocols, options=score_options(args), keep=True,
            scores_path=scores_path, workers=args.workers,
        )  # fmt: skip
        if distributed.is_main():
            for scores in scored.values():
                print_table(scores)
                folder = write_scores(scores, scores_path, split=split_file.stem, provenance=provenance)
                print(f"written to {folder}\n")
            print_side_by_side(list(scored.values()))
            note_gaps(scored.values())
    finally:
        distributed.stop()


def _note_unscored(results: Path, annotations: dict[str, Annotations]) -> None:
    """Say where results have frames without annotation: these are sparse, or some are missing."""
    for name, annotated in annotations.items():
        stems = pngs_by_stem(results / name).keys()
        if extra := sorted(stems - set(annotated.frame_names), key=natural_key):
            print(f"note: {name}: {len(extra)} of {len(stems)} results have no annotation and are not scored, "
                  f"first {extra[0]}", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    run_main(main, lower="--workers")
