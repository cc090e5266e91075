"""Rank the clusters or objects of a video without any annotation (docs/method.md, section 9)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RankingLimits:
    """Constants of objectness and foreground.

    What they were chosen on stands in docs/method.md, section 8.

    Attributes:
        border_share_weight: how much a label's share of the border counts in a video with much motion, of 1; the rest
            is the border ratio.
        background_border: share of the border that counts as much as a border ratio of 1.
        still_share, moving_share: share of a video's best objectness from which a label is foreground, in a video
            without motion evidence and in one with much; motion sets objectness further apart.
        motion_power: exponent of the motion ratio.
        motion_floor: motion evidence, log(1 + thousandths of the diagonal a frame), that is added to a label's and to
            the video's before they are compared, so that what a still video's noise leaves makes no difference.
            Videos of dev-8 have 0.1 to 1.
    """

    border_share_weight: float = 2 / 3
    background_border: float = 1 / 3
    still_share: float = 0.5
    moving_share: float = 0.2
    motion_power: float = 1.5
    motion_floor: float = 0.02


LIMITS = RankingLimits()
# Border ratio from which a label can be background: it then has at least its even share of the border.
BACKGROUND_BORDER_RATIO = 1.0


def compute_sizes(labels: np.ndarray) -> np.ndarray:
    """Compute each label's share of the video's tokens: labels (T, h, w) int >= 0 -> (number of labels,) float64."""
    return np.bincount(labels.ravel()) / labels.size


def rate_labels(labels: np.ndarray, motion: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Rate how likely each label of a video is an object, by component.

    The product of all components is the objectness.

    Args:
        labels: (T, h, w) int >= 0.
        motion: (T, h, w) float >= 0, motion evidence of each token (`model.objects.motion`); None for none.

    Returns:
        `size`: square root of the label's share of the video. `border`: how little it reaches the frame's border, in
        [0, 1]. In a still video this is 1 minus its border ratio, by which a small thing at the border is background.
        The more moves in a video, the more the share of the border that the label covers counts beside it, up to two
        thirds; motion tells objects from background then, and they may touch the border.
        `motion`, if there is motion evidence: the label's mean evidence divided by the video's, to the power of
        `LIMITS.motion_power`. Each (number of labels,) float64.
    """
    shares, weight = compute_sizes(labels), LIMITS.border_share_weight * _rate_movement(motion)
    covered = compute_border_shares(labels) / LIMITS.background_border
    reach = (1 - weight) * np.where(shares > 0, compute_border_ratios(labels), 0) + weight * covered
    border = np.clip(1 - reach, 0, 1).round(12)  # 0 and not a residue of rounding where `reach` is 1
    components = {"size": np.sqrt(shares), "border": border}
    if motion is not None:
        sums = np.bincount(labels.ravel(), motion.ravel().astype(np.float64))
        means = sums / np.maximum(shares * labels.size, 1)
        ratios = (means + LIMITS.motion_floor) / (motion.mean(dtype=np.float64) + LIMITS.motion_floor)
        components["motion"] = ratios**LIMITS.motion_power
    return components


def multiply_components(components: dict[str, np.ndarray]) -> np.ndarray:
    """Multiply the components of `rate_labels` to the objectness of each label: (number of labels,) float64 >= 0."""
    return np.prod(list(components.values()), axis=0)


def rank_labels(labels: np.ndarray, scores: np.ndarray, *, max_proposals: int | None) -> np.ndarray:
    """Rank labels by score, ties by size and then by number.

    A label is the same proposal in every frame, so identities are consistent over the video.

    Args:
        labels: (T, h, w) int >= 0, label of every token.
        scores: (number of labels,) float.
        max_proposals: number of labels that are kept; None keeps every label that some token has.

    Returns:
        (number of labels,) int32: the rank of each label, from 1; 0, background, for labels that are not kept.
    """
    sizes = np.bincount(labels.ravel())
    order = np.lexsort((-sizes, -scores))
    order = order[sizes[order] > 0][:max_proposals]
    ids = np.zeros(len(sizes), dtype=np.int32)
    ids[order] = np.arange(1, len(order) + 1)
    return ids


def select_foreground(labels: np.ndarray, motion: np.ndarray | None = None) -> np.ndarray:
    """Select the labels of a video with a large enough share of the best objectness as its foreground.

    The share is `still_share` without motion evidence and approaches `moving_share` with it. If no label has any
    objectness, the foreground is the label with the smallest border ratio, or all that share it.

    Args:
        labels: (T, h, w) int >= 0, label of every token.
        motion: (T, h, w) float >= 0, motion evidence of each token; None for none.

    Returns:
        (number of labels,) int32: 1 foreground, 0 background.
    """
    objectness = multiply_components(rate_labels(labels, motion))
    if not objectness.any():
        ratios = compute_border_ratios(labels)
        return (ratios == ratios.min()).astype(np.int32)
    share = LIMITS.still_share + (LIMITS.moving_share - LIMITS.still_share) * _rate_movement(motion)
    return (objectness >= share * objectness.max()).astype(np.int32)


def find_background(labels: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Find the labels that are background, which overlays and reports need not show.

    These are not in the foreground, and are at the border at least as often as elsewhere or cover much of it.

    labels (T, h, w) int >= 0 and foreground (number of labels,) from `select_foreground` -> (number of labels,) bool.
    """
    at_border = compute_border_ratios(labels) >= BACKGROUND_BORDER_RATIO
    return (at_border | (compute_border_shares(labels) >= LIMITS.background_border)) & (foreground == 0)


def _rate_movement(motion: np.ndarray | None) -> float:
    """Rate how much moves in a video, from 0 without motion evidence (T, h, w) to nearly 1 with much."""
    evidence = 0.0 if motion is None else float(motion.mean(dtype=np.float64))
    return evidence / (evidence + LIMITS.motion_floor)


def describe_proposals(
    labels: np.ndarray, ids: np.ndarray, components: dict[str, np.ndarray], background: np.ndarray
) -> list[dict[str, float]]:
    """Describe each label of a proposal, in order of ids.

    An entry holds the score, its components, the share of the tokens, the number of frames, and for background that it
    is.

    Args:
        labels: (T, h, w) int >= 0.
        ids: (number of labels,), as `rank_labels` returns.
        components: (number of labels,) each; their product is the score that the labels were ranked by.
        background: (number of labels,) bool.
    """
    shares, scores = compute_sizes(labels), multiply_components(components)
    frames = np.sum([np.bincount(frame.ravel(), minlength=len(ids)) > 0 for frame in labels], axis=0)
    return [
        {
            "id": int(ids[label]),
            "score": _round(scores[label]),
            **{name: _round(values[label]) for name, values in components.items()},
            "share": _round(shares[label]),
            "frames": int(frames[label]),
            **({"background": True} if background[label] else {}),
        }
        for label in sorted(np.flatnonzero(ids), key=lambda label: ids[label])
    ]


def _round(value: float) -> float:
    return float(f"{value:.4g}")  # significant digits, so that no small value becomes 0


def compute_border_ratios(labels: np.ndarray) -> np.ndarray:
    """Divide each label's share of the tokens at the frame's border by its share of all tokens.

    The ratio is 0 for a label off the border and 1 for a label spread evenly.

    labels: (T, h, w) int >= 0. Returns (number of labels,) float64; inf for a number that no token has.
    """
    sizes = np.bincount(labels.ravel())
    at_border = compute_border_shares(labels)
    return np.where(sizes > 0, at_border * labels.size / np.maximum(sizes, 1), np.inf)


def compute_border_shares(labels: np.ndarray) -> np.ndarray:
    """Compute each label's share of the tokens at the frame's border, which sum to 1.

    labels: (T, h, w) int >= 0. Returns (number of labels,) float64.
    """
    border = np.zeros(labels.shape[1:], dtype=bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    at_border = labels[:, border]
    return np.bincount(at_border.ravel(), minlength=int(labels.max()) + 1) / at_border.size
