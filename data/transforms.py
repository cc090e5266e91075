"""Augment the colours of training clips, all frames of a clip alike (docs/method.md, section 3)."""

import torch
from torch import Tensor
from torchvision.transforms import v2


class ClipAugmentation:
    """Turn clips grey, jitter their colours and blur them, each with its probability.

    Args:
        resolution: (height, width) of the frames; the blur kernel is odd and about a tenth of each side.
    """

    def __init__(self, resolution: tuple[int, int]):
        height, width = resolution
        # Kernel sizes of torchvision are (along x, along y).
        blur = v2.GaussianBlur((_odd_tenth(width), _odd_tenth(height)), sigma=(0.1, 2.0))
        self.transform = v2.Compose([
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)], p=0.8),
            v2.RandomApply([blur], p=0.5),
        ])  # fmt: skip

    def __call__(self, clip: Tensor, *, seed: int) -> Tensor:
        """Augment a clip (T, 3, H, W) uint8; all random numbers depend on `seed` only."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(clip)


def _odd_tenth(side: int) -> int:
    """Return an odd number near a tenth of `side`: the sizes of blur kernels must be odd."""
    return max(side // 10, 1) | 1
