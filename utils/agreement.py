"""Measure how far the masks of two folders of results agree, where there is no ground truth to score them by."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from utils.errors import UserError
from utils.png import find_pngs, read_label_png
from utils.predictions import FOREGROUND
from utils.report.results import Results
from utils.report.sources import list_masks

MEANINGS = {
    "objects": "objects of A and B in pairs, so that the sum of their IoU over the whole video is largest; that sum "
    "divided by the number of objects of the one that has more",
    FOREGROUND: "IoU of the two foregrounds over the whole video",
}


def measure_agreements(results: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Measure the agreement of two folders of results on the videos that both have: name -> measure -> value in [0, 1].

    The measures are those of `MEANINGS` for which both have predictions.

    Raises:
        UserError: they have no video or no kind of predictions in common, or masks of other frames or sizes.
    """
    first, second = map(Results, results)
    found: dict[str, dict[str, float]] = {}
    for measure, folders in _pair_predictions(first, second).items():
        names = [path.name for path in list_masks(folders[0])]
        there = {path.name for path in list_masks(folders[1])}
        for name in tqdm([name for name in names if name in there], measure, unit="video", leave=False, disable=None):
            pairs = _read_pairs(folders[0] / name, folders[1] / name)
            found.setdefault(name, {})[measure] = match_objects(pairs)
    if not found:
        raise UserError(f"{results[1]}: has no masks of a video of {results[0]}; segment the same videos for both")
    return found


def list_videos(results: Sequence[Path]) -> tuple[list[str], list[str]]:
    """List the names of the videos that each of two folders of results has masks of."""
    folders = next(iter(_pair_predictions(*map(Results, results)).values()))
    return tuple([path.name for path in list_masks(folder)] for folder in folders)


def _pair_predictions(first: Results, second: Results) -> dict[str, tuple[Path, Path]]:
    """Find the folders of PNGs to compare: measure -> those of A and B; masks of another program have no kind."""
    for results in (first, second):
        if not results.path.is_dir():
            raise UserError(f"{results.path}: no such folder")
    if not (first.kinds and second.kinds):
        return {"objects": (first.predictions, second.predictions)}
    common = [kind for kind in first.kinds if kind in second.kinds]
    if not common:
        kinds = " and ".join(f"{' and '.join(each.kinds)} in {each.path}" for each in (first, second))
        raise UserError(f"{second.path}: no kind of masks is in both, but {kinds}; run eval.py with one --protocol")
    objects = next((kind for kind in common if kind != FOREGROUND), None)
    chosen = {"objects": objects, FOREGROUND: FOREGROUND if FOREGROUND in common else None}
    return {name: (first.locate(kind), second.locate(kind)) for name, kind in chosen.items() if kind is not None}


def _read_pairs(first: Path, second: Path) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yield the label maps of A and B of each frame of a video."""
    pngs, others = find_pngs(first), find_pngs(second)
    if lacking := sorted(pngs.keys() ^ others.keys()):
        folder = second if lacking[0] in pngs else first
        raise UserError(f"{folder}: has no mask of frame {lacking[0]}; compare results of the same frames")
    for name, path in pngs.items():
        labels, other = read_label_png(path), read_label_png(others[name])
        if labels.shape != other.shape:
            raise UserError(f"{others[name]}: of another size than {path}; compare results of the same frames")
        yield labels, other


def match_objects(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Compute the agreement of two sets of objects of a video, see `MEANINGS`; 1 if neither has an object.

    Args:
        pairs: the label maps (H, W) int of each frame, 0 for no object.
    """
    counts = np.zeros((1, 1), dtype=np.int64)  # pixels by label of A and of B
    for labels, other in pairs:
        shape = np.maximum(counts.shape, (labels.max() + 1, other.max() + 1))
        counts = np.pad(counts, [(0, grown - size) for grown, size in zip(shape, counts.shape, strict=True)])
        counts += np.bincount((labels.astype(np.int64) * shape[1] + other).ravel(), minlength=counts.size).reshape(
            shape
        )
    counts = counts[counts.any(axis=1) | (np.arange(len(counts)) == 0)]
    counts = counts[:, counts.any(axis=0) | (np.arange(counts.shape[1]) == 0)]
    union = counts.sum(axis=1)[1:, None] + counts.sum(axis=0)[None, 1:] - counts[1:, 1:]
    if not max(union.shape):
        return 1.0
    iou = counts[1:, 1:] / np.maximum(union, 1)
    return float(iou[linear_sum_assignment(iou, maximize=True)].sum() / max(iou.shape))
