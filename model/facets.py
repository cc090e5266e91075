"""What is taken from a frozen ViT as features: queries, keys or values of self-attention, of one layer or several.

parse_facet("key")       # of the last layer: what the method attends with (METHOD.md 1)
parse_facet("value-2")   # two layers before it
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.errors import UserError

PARTS = ("query", "key", "value")  # in the order of a fused qkv
DEFAULT_FACETS = ("key",)


class Facet(NamedTuple):
    """part: one of PARTS. before: how many layers before the last."""

    part: str
    before: int

    def __str__(self) -> str:
        return f"{self.part}-{self.before}" if self.before else self.part

    def of(self, attention: nn.Module, attention_input: Tensor) -> Tensor:
        """Of tokens (B, N, C) that come into a self-attention: (B, N, C), heads concatenated, no rotary embedding."""
        return F.linear(attention_input, *projection(attention, self.part))


def parse_facet(word: str) -> Facet:
    """A facet from its name: query, key or value, and -N for the layer N before the last.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(rf"({'|'.join(PARTS)})(?:-([1-9]\d?))?", word)
    if not found:
        raise UserError(
            f"--facets {word}: give {', '.join(PARTS)}, or one of these with -N for the layer N before the last"
        )
    return Facet(found[1], int(found[2] or 0))


def join_facets(parts: Sequence[Tensor]) -> Tensor:
    """Facets (B, N, C) side by side (B, N, K C); of several each is normalised over C first, so that none outweighs."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([F.layer_norm(part, part.shape[-1:]) for part in parts], dim=-1)


def has_projections(attention: nn.Module) -> bool:
    return any(isinstance(getattr(attention, part, None), nn.Linear) for part in ("qkv", "k_proj"))


def projection(attention: nn.Module, part: str) -> tuple[Tensor, Tensor | None]:
    """Weight (C, C) and bias (C) or None that make one of PARTS, of a fused or a split qkv.

    timm's Eva (DINOv3) keeps the biases of a fused qkv apart and fixes that of the keys at zero.
    """
    initial = part[0]
    if isinstance(getattr(attention, "qkv", None), nn.Linear):
        third, bias = PARTS.index(part), attention.qkv.bias
        bias = getattr(attention, f"{initial}_bias", None) if bias is None else bias.chunk(3)[third]
        return attention.qkv.weight.chunk(3)[third], bias
    split = getattr(attention, f"{initial}_proj")
    return split.weight, split.bias
