"""What can be known of masks without labels while a block is trained: fragmentation is the known failure."""

import numpy as np
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from model.network import SpatioTemporalNetwork
from model.segmenter import Segmenter


class Watch:
    """Segments a few fixed clips and their mirror images.

    The backbone is frozen, so the clips' features are made once.

    Args:
        network: its backbone encodes the clips; its blocks may change between measurements.
        clips: (T, 3, H, W) uint8 each, H and W multiples of the patch size.
        key_stride, tau: of the segmentation (METHOD.md 4, 5).
    """

    def __init__(self, network: SpatioTemporalNetwork, clips: list[Tensor], *, key_stride: int, tau: float):
        self.options = {"key_stride": key_stride, "tau": tau}
        segmenter = Segmenter(network, **self.options)
        self.features = [
            [segmenter.encode(frames, num_frames=len(frames)) for frames in (clip, clip.flip(-1))] for clip in clips
        ]

    def measure(self, network: SpatioTemporalNetwork) -> dict[str, float]:
        """`clusters_per_clip` at --tau, and `mirror_agreement`, the adjusted Rand index between the clusters of a clip
        and of its mirror image (1 too where both are one single cluster), as means over the clips."""
        segmenter = Segmenter(network, **self.options)
        counts, agreements = [], []
        for encoded, mirrored in self.features:
            found, other = segmenter.cluster(*encoded), segmenter.cluster(*mirrored)
            counts.append(found.num_clusters)
            agreements.append(adjusted_rand_score(found.labels.ravel(), other.labels[..., ::-1].ravel()))
        return {"clusters_per_clip": float(np.mean(counts)), "mirror_agreement": float(np.mean(agreements))}
