"""Monitor the clusters of a few clips without labels while a block is trained: it fails by fragmenting objects."""

import numpy as np
import torch
from torch import Tensor

from model.network import SpatioTemporalNetwork
from model.segmenter import Segmentation, Segmenter, SegmenterSettings, key_frame_indices
from model.training.distances import QUANTILES, SHARE, quantiles, window_distances
from model.training.pictures import ClipPainter
from utils.progress import StageProgress, ignore_progress
from utils.scoring.slots import adjusted_rand_index

NUM_FRAMES, KEY_STRIDE = 12, 4  # of the monitored clips


class Monitor:
    """Segment a few fixed clips and their mirror images.

    The backbone is frozen, so the features of the clips are computed once.

    Args:
        network: its backbone encodes the clips; its blocks may change between measurements.
        clips: (T, 3, H, W) uint8 each, H and W multiples of the patch size.
        tau: of the segmentation (docs/method.md, section 5).
        progress: told of the clips that are encoded.
    """

    def __init__(
        self, network: SpatioTemporalNetwork, clips: list[Tensor], *, tau: float,
        progress: StageProgress = ignore_progress,
    ):  # fmt: skip
        self.tau = tau
        segmenter = Segmenter(network, SegmenterSettings(key_stride=KEY_STRIDE, tau=tau))
        self.features = []
        progress("features", 0, len(clips))
        for clip in clips:
            pair = [segmenter.encode(frames, num_frames=len(frames)) for frames in (clip, clip.flip(-1))]
            self.features.append(pair)
            progress("features", len(self.features), len(clips))
        features, grid = self.features[0][0]
        key_frames = key_frame_indices(len(features), KEY_STRIDE)
        self.painter = ClipPainter(clips[0], features, grid=grid, key_frames=key_frames)
        self.first_clip: list[Segmentation] = []  # what the last `measure` found in it, at each tau

    def measure(
        self, network: SpatioTemporalNetwork, *, progress: StageProgress = ignore_progress
    ) -> dict[str, float]:  # fmt: skip
        """Measure the clusters of the clips, on average, and the distances within their windows.

        Returns:
            `clusters_per_clip`, and `mirror_agreement`, the adjusted Rand index between the clusters of a clip and of
            its mirror image (0 if both are a single cluster); both at --tau, and with the suffix `_auto` at `tau_auto`.
            `tau_auto` and the quantiles of `measure_distances`.
        """
        found = self.measure_distances(network)
        found["tau_auto"] = found[_name_quantile(SHARE)]
        self.first_clip = []
        thresholds = ((self.tau, ""), (found["tau_auto"], "_auto"))
        progress("clusters", 0, len(thresholds) * len(self.features))
        for place, (tau, suffix) in enumerate(thresholds):
            segmenter = Segmenter(network, SegmenterSettings(key_stride=KEY_STRIDE, tau=tau))
            counts, agreements = [], []
            for index, (encoded, mirrored) in enumerate(self.features):
                here, there = _cluster(segmenter, *encoded), _cluster(segmenter, *mirrored)
                counts.append(here.num_clusters)
                agreements.append(compare_maps(here.labels, there.labels[..., ::-1]))
                self.first_clip += [here] if index == 0 else []
                progress("clusters", place * len(self.features) + index + 1, len(thresholds) * len(self.features))
            found[f"clusters_per_clip{suffix}"] = float(np.mean(counts))
            found[f"mirror_agreement{suffix}"] = float(np.mean(agreements))
        return found

    def draw(self, network: SpatioTemporalNetwork) -> dict[str, np.ndarray]:
        """Draw the clusters that `measure` found in the first clip, and the attention of some of its tokens.

        Returns:
            Pictures (H, W, 3) uint8 RGB by name.
        """
        return {
            "clip/clusters": self.painter.draw_clusters(self.first_clip),
            "clip/attention": self.painter.draw_attention(network),
        }

    def measure_distances(self, network: SpatioTemporalNetwork) -> dict[str, float]:
        """Measure quantiles of the distances within windows over all clips, in nats, such as `distance_q05`."""
        network.eval()
        key_frames = [key_frame_indices(len(features), KEY_STRIDE) for (features, _), _ in self.features]
        values = [
            window_distances(network, network.refine(features.clone(), frames), frames)
            for ((features, _), _), frames in zip(self.features, key_frames, strict=True)
        ]
        return dict(zip(map(_name_quantile, QUANTILES), quantiles(torch.cat(values)), strict=True))

    def tau_auto(self, network: SpatioTemporalNetwork) -> float:
        """Compute the threshold that suits the block as it is now; checkpoints record it."""
        return self.measure_distances(network)[_name_quantile(SHARE)]


def _name_quantile(share: float) -> str:
    return f"distance_q{round(100 * share):02d}"


def _cluster(segmenter: Segmenter, features: Tensor, grid: tuple[int, int]) -> Segmentation:
    """Cluster a copy of a clip's features, since several blocks overwrite them."""
    return segmenter.cluster(features.clone(), grid)


def compare_maps(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the adjusted Rand index of two label maps (T, h, w) >= 0, at most 1.

    By its definition two maps of a single label agree fully; here they count 0, so that a collapsed block does not look
    good.
    """
    if max(len(np.unique(labels)) for labels in (first, second)) < 2:
        return 0.0
    shared_tokens = np.zeros((first.max() + 1, second.max() + 1), np.int64)
    np.add.at(shared_tokens, (first, second), 1)
    return adjusted_rand_index(shared_tokens)
