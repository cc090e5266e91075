"""Find targets for the object loss: which tokens of a training video show the same object (docs/method.md, section 13).

    maps = find_object_maps(segmenter, features, grid, motion=motion)       # of a whole video
    clip = ClipTargets(maps, [0, 4, 8])                                     # its frames 0, 4 and 8
    queries = clip.draw_queries(256, rng)
    same, different = clip.compare(queries)                                 # each (256, 3 * h * w) bool

A video is segmented several times, at several thresholds, forwards and backwards in time. Two tokens show the same
object if most of these maps say so, and different objects if few do. What lies between, and tokens at boundaries, is
unsure: the loss leaves it out.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.objects.affinity import CentredFeatures
from model.objects.find import find_objects
from model.objects.motion import Motion
from model.segmenter import Segmenter


@dataclass(frozen=True)
class TargetLimits:
    """Limits of the targets.

    Attributes:
        taus: thresholds, as multiples of that of the video. J&F moves by several points from one to the next
            (docs/results.md), so a single one is no evidence.
        same: least share of maps in which tokens of the same object have one label.
        different: largest share of maps in which tokens of different objects have one label.
    """

    taus: tuple[float, ...] = (0.7, 1.0, 1.4)
    same: float = 0.6
    different: float = 0.3


LIMITS = TargetLimits()


@dataclass
class ObjectMaps:
    """Several segmentations of a video into objects.

    Attributes:
        maps: (K, T, h, w) int16, the objects of each segmentation, numbered from 0 in each.
        is_boundary: (T, h, w) bool, tokens that show parts of two things in any of them.
    """

    maps: np.ndarray
    is_boundary: np.ndarray

    def fuse(self, other: "ObjectMaps") -> "ObjectMaps":
        """Return the segmentations of both, of one video."""
        return ObjectMaps(np.concatenate([self.maps, other.maps]), self.is_boundary | other.is_boundary)

    def has_sure_objects(self) -> bool:
        """Tell whether a token, of 256 in three frames, surely shares its object with some and not with others."""
        frames = np.linspace(0, self.maps.shape[1] - 1, 3).round().astype(int).tolist()
        clip = ClipTargets(self, frames)
        same, different = clip.compare(clip.draw_queries(256, np.random.default_rng(0)))
        return bool((same.any(-1) & different.any(-1)).any())


@dataclass
class ClipTargets:
    """Targets of a clip of n frames, whose n * h * w tokens are counted frame by frame and row by row.

    Attributes:
        maps: of the clip's video.
        frames: positions of the clip's frames in the video.
    """

    maps: ObjectMaps
    frames: list[int]

    def draw_queries(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw up to `count` tokens that are not at boundaries: rising positions in the clip, int64.

        A token is drawn with the weight 1 / sqrt(size of its object), so that small objects count: an object of four
        times the size is drawn twice as often.
        """
        sizes = np.mean([np.bincount(one.ravel())[one[self.frames]] for one in self.maps.maps], axis=0)
        weights = np.where(self.maps.is_boundary[self.frames], 0.0, sizes**-0.5).ravel()
        count = min(count, np.count_nonzero(weights))
        if not count:
            return np.zeros(0, np.int64)
        return np.sort(rng.choice(len(weights), count, replace=False, p=weights / weights.sum()))

    def compare(self, queries: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tell which tokens of the clip show the object of each query, and which show others.

        Returns:
            same, different: (queries, n * h * w) bool; neither where the maps disagree, and at boundary tokens.
        """
        labels = self.maps.maps[:, self.frames].reshape(len(self.maps.maps), -1)
        share = np.mean([one[queries, None] == one for one in labels], axis=0)
        sure = ~self.maps.is_boundary[self.frames].ravel()
        found = (share >= LIMITS.same) & sure, (share <= LIMITS.different) & sure
        return tuple(map(torch.from_numpy, found))


@torch.no_grad()
def find_object_maps(
    segmenter: Segmenter, features: Tensor, grid: tuple[int, int], *, motion: Motion | None
) -> ObjectMaps:
    """Segment a video into objects at several thresholds, forwards and backwards in time.

    Args:
        segmenter: finds the threshold of the video, of which the others are multiples.
        features: (T, h*w, C) of the video, as the last block sees them.
        motion: how its tokens move; None if it is not known.
    """
    first = segmenter.cluster(features.clone(), grid)  # several blocks overwrite what they are given
    runs = [first.labels]
    for backwards in (False, True):
        ordered = features.flip(0) if backwards else features
        for factor in LIMITS.taus:
            if factor == 1 and not backwards:
                continue
            settings = replace(segmenter.settings, tau=factor * first.tau, clusters=None)
            labels = Segmenter(segmenter.network, settings).cluster(ordered.clone(), grid).labels
            runs.append(labels[::-1] if backwards else labels)
    centred = CentredFeatures(features, grid)
    found = [find_objects(labels, centred, motion=motion) for labels in runs]
    is_boundary = np.any([boundary_tokens for _, boundary_tokens in found], axis=0)
    return ObjectMaps(np.stack([objects.astype(np.int16) for objects, _ in found]), is_boundary)
