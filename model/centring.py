"""Features of a video centred or whitened over it, before anything attends with them; in place, a frame at a time.

All frames of a video share what its scene, light and the place in the picture give to every token. `mean` takes away
the mean over all tokens. `whitened` also makes all directions vary alike (ZCA), as far as RIDGE allows.
"""

import torch
from torch import Tensor

CENTRINGS = ("none", "mean", "whitened")
RIDGE = 0.1  # added to the variances, in parts of their mean: directions of little variance are mostly noise


@torch.no_grad()
def centre(features: Tensor, how: str) -> None:
    """Centre features (T, N, C) float32, in memory or mapped from disk, in place, by one of CENTRINGS.

    Whitened, z = (Cov + r I)^-1/2 (x - mean), r = RIDGE tr(Cov) / C; where nothing varies they are 0.
    """
    if how not in CENTRINGS:
        raise ValueError(f"{how!r} is none of {', '.join(CENTRINGS)}")
    if how == "none":
        return
    count, dim = features.shape[0] * features.shape[1], features.shape[2]
    mean = torch.stack([frame.mean(0, dtype=torch.float64) for frame in features]).mean(0)
    for frame in features:
        frame.sub_(mean.to(frame))
    if how == "mean":
        return
    covariance = torch.zeros(dim, dim, dtype=torch.float64)
    for frame in features:
        covariance += frame.double().T @ frame.double() / count
    variances, directions = torch.linalg.eigh(covariance)
    variances += RIDGE * variances.mean()
    scale = variances.clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
    whitening = ((directions * scale) @ directions.T).to(features)
    for frame in features:
        frame.copy_(frame @ whitening)
