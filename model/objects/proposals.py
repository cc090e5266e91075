"""Choose the proposals of a video among its clusters or objects (docs/method.md, section 9)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.objects.ranking import (
    compute_sizes,
    describe_proposals,
    find_background,
    multiply_components,
    rank_labels,
    rate_labels,
    select_foreground,
)
from model.objects.upsampling import upsample_labels
from model.segmenter import Segmentation
from utils.errors import UserError
from utils.flags.choices import CLUSTERS, OBJECTS, STEPS
from utils.scoring.protocols import MAX_PROPOSALS


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
    return {step: step in chosen for step in STEPS}


@dataclass(frozen=True)
class Proposals:
    """The proposals of one video.

    labels: (T, h, w) int label of every token, >= 0. boundary_tokens: (T, h, w) bool mask of tokens between two
    labels, or None. components: kind of predictions -> name -> (number of labels,) float, whose product is the score
    of a label. ids: kind of predictions -> (number of labels,) int, the proposal of each label, 0 for none.
    background: (number of labels,) bool, labels that overlays and reports need not show.
    """

    labels: np.ndarray
    boundary_tokens: np.ndarray | None
    components: dict[str, dict[str, np.ndarray]]
    ids: dict[str, np.ndarray]
    background: np.ndarray

    def describe(self) -> dict[str, list[dict[str, float]]]:
        """List score, its components, size and length of each label that is in a proposal, by kind of predictions."""
        return {
            kind: describe_proposals(self.labels, ids, self.components[kind], self.background)
            for kind, ids in self.ids.items()
        }

    def label_maps(self, frames: Iterable[Tensor], *, upsampling: str, device: torch.device) -> Iterator[dict]:
        """Yield for each frame (3, H, W) uint8 its label map (H, W) by kind of predictions."""
        for labels in upsample_labels(self.labels, frames, self.boundary_tokens, how=upsampling, device=device):
            yield {kind: ids[labels] for kind, ids in self.ids.items()}


def choose_proposals(found: Segmentation, kinds: Sequence[str], *, limit: int | None) -> Proposals:
    """Rank the objects of a video by objectness, or its clusters by size if no objects were made.

    The foreground is selected by objectness in both cases.

    Args:
        kinds: kinds of predictions that protocols take, see `utils.scoring.protocols`.
        limit: keep at most this many proposals; without effect on `foreground`.
    """
    labels = found.labels if found.objects is None else found.objects
    evidence = None if found.motion is None else found.motion.evidence
    rated = rate_labels(labels, evidence)
    ranked = {"size": compute_sizes(labels)} if found.objects is None else rated
    foreground = select_foreground(labels, evidence)
    background = find_background(labels, foreground) & (found.objects is not None)
    ids, components = {}, {}
    for kind in kinds:
        components[kind] = rated if kind == "foreground" else ranked
        if kind == "foreground":
            ids[kind] = foreground
        else:
            limits = [number for number in (limit, MAX_PROPOSALS if kind == "davis" else None) if number]
            ids[kind] = rank_labels(labels, multiply_components(ranked), max_proposals=min(limits, default=None))
    return Proposals(labels, found.boundary_tokens, components, ids, background)
