"""Score label PNGs of any method against ground truth.

    python -m utils.scoring --results results/ours --davis_path /data/DAVIS --protocol davis paper

`<results>/<sequence>/<frame>.png` is scored against `<annotations>/<sequence>/<frame>.png` under one or more
protocols (docs/method.md, section 6; `utils.scoring.protocols`):

- `davis`: one Hungarian assignment per sequence, at most 20 proposals. This is the official protocol of
  DAVIS-2017-Unsupervised; its figures can be compared with other methods'.
- `paper`: a new Hungarian assignment in every frame, any number of proposals. The paper's figures were scored so.
  Identity over time is not scored, so J&F of the same PNGs is never below that of `davis`.
- `foreground`: the union of all proposals against the union of all objects. `oracle`: the same with the best union of
  proposals, chosen with the ground truth.
- `slots`: FG-ARI, ARI, mBO and mIoU (`slots.py`). `tracks`: class-agnostic AP and AR (`tracks.py`).

Datasets in another layout than that of DAVIS: `python eval.py --predictions results/ours --dataset NAME`.

Tables are written to `scores/<protocol>/` below `--scores_path`. Without that flag they are written below the results
if eval.py wrote these, otherwise below `outputs/scores/<name of the results>`: folders of other programs are not
changed. The scores of each sequence are saved in `sequences/` with a hash of all PNGs and of the ground truth, so an
interrupted scoring continues and scores of other files are never reused. Only one frame of a sequence is in memory at
a time, beside a table of its J and F. Under torchrun every process scores its part of the sequences.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.scoring import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

import os
from argparse import Namespace
from pathlib import Path

from utils import distributed
from utils.errors import UserError, run_main
from utils.flags.scoring import parse_args
from utils.names import natural_key, read_names
from utils.png import find_pngs
from utils.progress import log_line
from utils.scoring.annotations import Annotations, find_label_files
from utils.scoring.evaluators import Options
from utils.scoring.folders import score_folders
from utils.scoring.label_checks import check_labels
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.score import expand_protocol_names, read_provenance
from utils.scoring.tables import choose_scores_folder


def main() -> None:
    """Score the results, print the tables and write them."""
    args = parse_args(__doc__)
    split_file = args.davis_path / args.split_file
    if not split_file.is_file():
        raise UserError(f"{split_file}: no such split file; {_suggest_root(args)}")
    truth = args.davis_path / args.annotations
    sequences = read_names(split_file, is_name=lambda line: os.path.isdir(truth / line))
    provenance = read_provenance(args.results)
    scores_path = choose_scores_folder(args.results, chosen=args.scores_path, flag="--scores_path")
    if not truth.is_dir():
        raise UserError(f"{truth}: no such folder; {_suggest_annotations(args)}")
    annotations = {name: find_label_files(truth / name) for name in sequences}
    note_unscored(args.results, annotations)
    protocols = expand_protocol_names(args.protocol, tuple(PROTOCOLS))
    annotations = check_labels(annotations, protocols)
    options = Options(toolkit_exact=args.toolkit_exact, first_frame_objects=args.first_frame_objects)
    with distributed.join_group():
        score_folders(
            dict.fromkeys(protocols, args.results), annotations, options=options, split=split_file.stem,
            provenance=provenance, scores_path=scores_path, workers=args.workers,
        )  # fmt: skip


def note_unscored(results: Path, annotations: dict[str, Annotations]) -> None:
    """Note on stderr which sequences have results for frames without annotation, which are not scored."""
    for name, annotated in annotations.items():
        stems = find_pngs(results / name).keys()
        if extra := sorted(stems - set(annotated.frame_names), key=natural_key):
            log_line(f"note: {name}: {len(extra)} of {len(stems)} results have no annotation and are not scored, "
                     f"first {extra[0]}")  # fmt: skip


def _suggest_root(args: Namespace) -> str:
    """Say what to give as --davis_path: unpacking an archive often adds a folder above the data."""
    inside = [path for pattern in ("*", "*/*") for path in sorted(args.davis_path.glob(pattern))]
    found = next((path for path in inside if (path / args.split_file).is_file()), None)
    return f"give --davis_path {found}" if found else "check --davis_path and --split_file"


def _suggest_annotations(args: Namespace) -> str:
    """Say what to give as --annotations: DAVIS's downloads have them in different folders."""
    known = ("Annotations_unsupervised/480p", "Annotations/480p", "Annotations")
    found = next((path for path in known if (args.davis_path / path).is_dir()), None)
    return f"give --annotations {found}, which is there" if found else "check --davis_path and --annotations"


if __name__ == "__main__":
    run_main(main, lower="--workers")
