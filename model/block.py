"""The spatio-temporal Transformer block, the only trained part (docs/method.md, section 2)."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import attend


class Attention(nn.Module):
    """Compute multi-head self-attention and return the attention averaged over heads, too; qkv without bias."""

    def __init__(self, dim: int, *, num_heads: int, proj_drop: float, attn_drop: float):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} does not divide into {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.attn_drop = attn_drop
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from x (B, L, C) to context (B, S, C); returns (B, L, C) and the mean attention (B, L, S).

        The attention returned is the softmax itself, a distribution over S; dropout acts on the copy that mixes
        the values.
        """
        drop = self.attn_drop if self.training else 0.0
        mixed, attn = attend(self.queries(x), self.keys(context), self._project(context, 2), drop=drop)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2))), attn

    def queries(self, x: Tensor) -> Tensor:
        """Project tokens (B, L, C) to queries (B, M, L, C/M)."""
        return self._project(x, 0)

    def keys(self, x: Tensor) -> Tensor:
        """Project tokens (B, S, C) to keys (B, M, S, C/M)."""
        return self._project(x, 1)

    def _project(self, x: Tensor, third: int) -> Tensor:
        """Project tokens (B, L, C) by one third of qkv and split them into heads: (B, M, L, C/M)."""
        return rearrange(F.linear(x, self.qkv.weight.chunk(3)[third]), "b l (m d) -> b m l d", m=self.num_heads)


class Mlp(nn.Module):
    def __init__(self, dim: int, *, hidden_dim: int, drop: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.act = nn.GELU()
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class SpatioTemporalBlock(nn.Module):
    """Transform the tokens of all frames of a clip together: x + attn(norm1(x)), then x + mlp(norm2(x)).

    Parameter names are the reference implementation's (docs/method.md, section 2), so that its checkpoints load.
    """

    def __init__(self, dim: int, *, num_heads: int = 8, drop: float = 0.1, attn_drop: float = 0.4):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads=num_heads, proj_drop=drop, attn_drop=attn_drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_dim=4 * dim, drop=drop)
        self.init_random()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform tokens x (B, L, C), which attend to one another or to `context` (B, S, C).

        Returns:
            Output tokens (B, L, C) and the attention averaged over heads (B, L, S), rows summing to 1.
        """
        normed = self.norm1(x)
        mixed, attn = self.attn(normed, normed if context is None else self.norm1(context))
        x = x + mixed
        return x + self.mlp(self.norm2(x)), attn

    def queries(self, x: Tensor) -> Tensor:
        """Compute queries (B, M, L, C/M) of tokens (B, L, C), all that inference needs of the tokens of a video."""
        return self.attn.queries(self.norm1(x))

    def keys(self, x: Tensor) -> Tensor:
        """Compute keys (B, M, S, C/M) of tokens (B, S, C)."""
        return self.attn.keys(self.norm1(x))

    @torch.no_grad()
    def init_random(self) -> None:
        """Initialise as ViTs are: normal weights of deviation 0.02 cut at 2, biases zero, norms the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    @torch.no_grad()
    def init_identity(self, *, temperature: float) -> None:
        """Initialise the training-free block: q = k = temperature * LayerNorm(x), and the block returns x itself.

        Values pass unchanged (v = LayerNorm(x)) into a projection that starts at zero, as does the MLP's last
        layer: the output tokens are the inputs, and training moves away from there.
        """
        self.init_random()
        identity = torch.eye(self.attn.proj.weight.shape[0])
        self.attn.qkv.weight.copy_(torch.cat([temperature * identity, temperature * identity, identity]))
        nn.init.zeros_(self.attn.proj.weight)
        nn.init.zeros_(self.mlp.fc2.weight)
