"""Choose the proposals of a video among its clusters or objects (docs/method.md, section 9)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.objects.ranking import by_objectness, by_size, choose, describe
from model.objects.upsampling import at_pixels
from model.segmenter import Segmentation
from utils.errors import UserError

OBJECTS, CLUSTERS = "objects", "clusters"
# Words of --proposals -> the option of `find_objects` that each turns on. `OBJECTS` is all of them, `CLUSTERS` none.
STEPS = {"outlines": "outlines", "merged": "merge", "split": "split"}
PROPOSALS = (OBJECTS, *STEPS, CLUSTERS)


def normalise_proposals(words: Sequence[str]) -> str:
    """Write words of `PROPOSALS` in one way only, so that equal masks have equal settings.

    Raises:
        UserError: `OBJECTS` or `CLUSTERS` beside another word.
    """
    if len(set(words)) > 1 and (whole := {OBJECTS, CLUSTERS} & set(words)):
        raise UserError(f"--proposals {' '.join(words)}: {min(whole)} stands by itself")
    chosen = [word for word in STEPS if word in words]
    return OBJECTS if len(chosen) == len(STEPS) else " ".join(chosen) or words[0]


def object_options(proposals: str) -> dict[str, bool] | None:
    """Return the options of `find_objects` for normalised `proposals`; None if clusters are the proposals."""
    if proposals == CLUSTERS:
        return None
    chosen = STEPS if proposals == OBJECTS else proposals.split()
    return {option: word in chosen for word, option in STEPS.items()}


@dataclass(frozen=True)
class Proposals:
    """The proposals of one video.

    labels: (T, h, w) int label of every token, >= 0. boundary_tokens: (T, h, w) bool mask of tokens between two
    labels, or None. scores: (number of labels,) float. ids: kind of predictions -> (number of labels,) int, the
    proposal of each label, 0 for background.
    """

    labels: np.ndarray
    boundary_tokens: np.ndarray | None
    scores: np.ndarray
    ids: dict[str, np.ndarray]

    def describe(self) -> dict[str, list[dict[str, float]]]:
        """List score, size and length of each proposal, by kind of predictions."""
        return {kind: describe(self.labels, ids, self.scores) for kind, ids in self.ids.items()}

    def label_maps(self, frames: Iterable[Tensor], *, upsampling: str, device: torch.device) -> Iterator[dict]:
        """Yield for each frame (3, H, W) uint8 its label map (H, W) by kind of predictions."""
        for labels in at_pixels(self.labels, frames, self.boundary_tokens, how=upsampling, device=device):
            yield {kind: ids[labels] for kind, ids in self.ids.items()}


def choose_proposals(found: Segmentation, kinds: Sequence[str], *, limit: int | None) -> Proposals:
    """Rank the objects of a video, or its clusters by size if no objects were made, for each kind of predictions.

    Args:
        kinds: kinds of predictions that protocols take, see `utils.scoring.protocols`.
        limit: keep at most this many proposals.
    """
    labels, score_of = (found.labels, by_size) if found.objects is None else (found.objects, by_objectness)
    scores = score_of(labels)
    ids = {kind: choose(kind, labels, scores, limit=limit) for kind in kinds}
    return Proposals(labels, found.boundary_tokens, scores, ids)
