"""What can be known of masks without labels while a block is trained: fragmentation is the known failure."""

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from model.network import SpatioTemporalNetwork
from model.segmenter import Segmentation, Segmenter, key_frame_indices
from model.training.distances import QUANTILES, SHARE, quantiles, window_distances

NUM_FRAMES, KEY_STRIDE = 12, 4  # of the clips that are looked at


class Watch:
    """Segments a few fixed clips and their mirror images.

    The backbone is frozen, so the clips' features are made once.

    Args:
        network: its backbone encodes the clips; its blocks may change between measurements.
        clips: (T, 3, H, W) uint8 each, H and W multiples of the patch size.
        key_stride, tau: of the segmentation (docs/method.md, sections 4 and 5).
    """

    def __init__(
        self, network: SpatioTemporalNetwork, clips: list[Tensor], *, tau: float, key_stride: int = KEY_STRIDE
    ):
        self.key_stride, self.tau = key_stride, tau
        segmenter = Segmenter(network, key_stride=key_stride, tau=tau)
        self.features = [
            [segmenter.encode(frames, num_frames=len(frames)) for frames in (clip, clip.flip(-1))] for clip in clips
        ]

    def measure(self, network: SpatioTemporalNetwork) -> dict[str, float]:
        """Means over the clips, at --tau and at `tau_auto`: `clusters_per_clip`, and `mirror_agreement`, the adjusted
        Rand index between the clusters of a clip and of its mirror image (0 where both are one single cluster).
        And quantiles of the distances that the clusters are cut by, in nats, see `model.engine.threshold`."""
        found = self.distances(network)
        found["tau_auto"] = found[_name(SHARE)]
        for tau, suffix in ((self.tau, ""), (found["tau_auto"], "_auto")):
            segmenter = Segmenter(network, key_stride=self.key_stride, tau=tau)
            counts, agreements = [], []
            for encoded, mirrored in self.features:
                here, there = _cluster(segmenter, *encoded), _cluster(segmenter, *mirrored)
                counts.append(here.num_clusters)
                agreements.append(_agreement(here, there))
            found[f"clusters_per_clip{suffix}"] = float(np.mean(counts))
            found[f"mirror_agreement{suffix}"] = float(np.mean(agreements))
        return found

    def distances(self, network: SpatioTemporalNetwork) -> dict[str, float]:
        """Quantiles of the distances within windows, over all clips, such as `distance_q05`."""
        network.eval()
        key_frames = [key_frame_indices(len(features), self.key_stride) for (features, _), _ in self.features]
        values = [
            window_distances(network, network.refine(features.clone(), frames), frames)
            for ((features, _), _), frames in zip(self.features, key_frames, strict=True)
        ]
        return dict(zip(map(_name, QUANTILES), quantiles(torch.cat(values)), strict=True))

    def tau_auto(self, network: SpatioTemporalNetwork) -> float:
        """The threshold that fits the block as it is now, for a checkpoint to say."""
        return self.distances(network)[_name(SHARE)]


def _name(share: float) -> str:
    return f"distance_q{round(100 * share):02d}"


def _cluster(segmenter: Segmenter, features: Tensor, grid: tuple[int, int]) -> Segmentation:
    """Clusters of a clip, whose features are left as they are."""
    return segmenter.cluster(features.clone(), grid)


def _agreement(here: Segmentation, there: Segmentation) -> float:
    """Adjusted Rand index between a clip's clusters and those of its mirror image, at most 1.

    Two single clusters agree by what the index is defined as, yet a block that has collapsed must not look good.
    """
    if max(here.num_clusters, there.num_clusters) < 2:
        return 0.0
    return adjusted_rand_score(here.labels.ravel(), there.labels[..., ::-1].ravel())
