"""The student of a distillation: its start from the teacher's weights, what its keys should be, its losses."""

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from utils.distill_data import encode

# -------------------------------------------------------------------------------- start from the teacher


def evenly(count: int, total: int) -> Tensor:
    """`count` indices spread over range(total), the last one included."""
    return torch.linspace(0, total - 1, count).round().long()


def select_weights(student: VisionTransformer, teacher: VisionTransformer) -> None:
    """Fill the student with evenly chosen layers, heads and channels of the teacher ("weight selection").

    Patch kernel and position embedding are resampled, LayerScale is folded into the projection before it.
    """
    dim = evenly(student.embed_dim, teacher.embed_dim)
    state, blocks = teacher.state_dict(), student.blocks
    grid = student.patch_embed.grid_size
    kernel = resample_patch_embed(state["patch_embed.proj.weight"], list(student.patch_embed.patch_size))
    prefix = [0, *range(teacher.num_prefix_tokens, state["pos_embed"].shape[1])]
    pos_embed = resample_abs_pos_embed(
        state["pos_embed"][:, prefix], list(grid), list(teacher.patch_embed.grid_size), num_prefix_tokens=1
    )
    new = {
        "cls_token": state["cls_token"][..., dim],
        "pos_embed": pos_embed[..., dim],
        "patch_embed.proj.weight": kernel[dim],
        "patch_embed.proj.bias": state["patch_embed.proj.bias"][dim],
        "norm.weight": state["norm.weight"][dim],
        "norm.bias": state["norm.bias"][dim],
    }
    for i, layer in enumerate(evenly(len(blocks), len(teacher.blocks)).tolist()):
        source = {
            key.removeprefix(f"blocks.{layer}."): value
            for key, value in state.items()
            if key.startswith(f"blocks.{layer}.")
        }
        selected = select_block(source, blocks[i], teacher.blocks[layer], dim)
        new |= {f"blocks.{i}.{key}": value for key, value in selected.items()}
    student.load_state_dict(new)


def select_block(source: dict[str, Tensor], block: nn.Module, teacher: nn.Module, dim: Tensor) -> dict[str, Tensor]:
    """The state of one block from a teacher block's; `dim` are the residual channels kept."""
    attn, wide = block.attn, teacher.attn
    heads, within = evenly(attn.num_heads, wide.num_heads), evenly(attn.head_dim, wide.head_dim)
    inner = (heads[:, None] * wide.head_dim + within).flatten()  # channels of q, of k, of v
    qkv = torch.cat([part * wide.num_heads * wide.head_dim + inner for part in range(3)])
    hidden = evenly(block.mlp.fc1.out_features, teacher.mlp.fc1.out_features)
    one = torch.ones(len(source["norm1.weight"]))
    scale1, scale2 = source.get("ls1.gamma", one), source.get("ls2.gamma", one)
    state = {
        f"{norm}.{part}": source[f"{norm}.{part}"][dim] for norm in ("norm1", "norm2") for part in ("weight", "bias")
    }
    state["attn.qkv.weight"] = source["attn.qkv.weight"][qkv][:, dim]
    state["attn.qkv.bias"] = source["attn.qkv.bias"][qkv]
    state["attn.proj.weight"] = (source["attn.proj.weight"] * scale1[:, None])[dim][:, inner]
    state["attn.proj.bias"] = (source["attn.proj.bias"] * scale1)[dim]
    state["mlp.fc1.weight"] = source["mlp.fc1.weight"][hidden][:, dim]
    state["mlp.fc1.bias"] = source["mlp.fc1.bias"][hidden]
    state["mlp.fc2.weight"] = (source["mlp.fc2.weight"] * scale2[:, None])[dim][:, hidden]
    state["mlp.fc2.bias"] = (source["mlp.fc2.bias"] * scale2)[dim]
    return state


# -------------------------------------------------------------------------------- targets and losses


def unit(keys: Tensor) -> Tensor:
    """LayerNorm without affine over the last dimension."""
    return F.layer_norm(keys.float(), keys.shape[-1:])


def fit_basis(keys: Tensor, *, dim: int, heads: int) -> Tensor:
    """Per-head maps that bring LayerNormed teacher keys (n, C) to `dim` channels, dot products nearly kept.

    Returns (heads, C/heads, dim/heads). In each head the leading dim/heads - 1 directions (PCA about zero)
    are laid orthogonally to the vector of ones: targets of zero mean are what a LayerNorm can put out.
    """
    by_head = unit(keys).unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, n, C/heads)
    width = dim // heads
    moments = by_head.transpose(1, 2) @ by_head / by_head.shape[1]
    leading = torch.linalg.eigh(moments).eigenvectors.flip(-1)[..., : width - 1]
    ones_first = torch.eye(width)
    ones_first[:, 0] = 1
    zero_mean = torch.linalg.qr(ones_first).Q[:, 1:]  # (width, width - 1), columns orthogonal to ones
    generator = torch.Generator().manual_seed(0)  # a rotation, so that no channel carries the largest direction
    rotation = torch.linalg.qr(torch.randn(width - 1, width - 1, generator=generator)).Q
    return leading @ rotation @ zero_mean.T


def key_targets(keys: Tensor, basis: Tensor) -> Tensor:
    """Teacher keys (..., N, C) -> what the student's LayerNormed keys should be (..., N, D)."""
    by_head = unit(keys).unflatten(-1, (basis.shape[0], -1))
    return unit(torch.einsum("...hc,hcd->...hd", by_head, basis).flatten(-2))


def attention(queries: Tensor, keys: Tensor, *, heads: int, sharpness: float) -> Tensor:
    """Mean over heads of softmax attention between LayerNormed vectors (I, Q, C) and (I, K, C) -> (I, Q, K).

    The logit is `sharpness` times the mean product over a head's channels, whatever their number.
    """
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys))
    return (q @ k.transpose(-1, -2) * (sharpness / q.shape[-1])).softmax(dim=-1).mean(dim=1)


def attention_kl(student: Tensor, teacher: Tensor, picked: Tensor, *, heads: int, sharpness: float) -> Tensor:
    """KL(teacher || student) of the attention of the `picked` tokens; LayerNormed (I, K, C), C may differ."""
    p, q = (attention(x[:, picked], x, heads=heads, sharpness=sharpness) for x in (teacher, student))
    return (p * ((p + 1e-10).log() - (q + 1e-10).log())).sum(dim=-1).mean()


class Student(nn.Module):
    """The ViT, two linear maps that only training uses, and the map that makes its key targets."""

    def __init__(self, kwargs: dict, teacher_dim: int, heads: int):
        super().__init__()
        dim = kwargs["embed_dim"]
        self.vit = VisionTransformer(**kwargs)
        self.to_tokens, self.to_cls = nn.Linear(dim, teacher_dim), nn.Linear(dim, teacher_dim)
        self.register_buffer("basis", torch.zeros(heads, teacher_dim // heads, dim // heads))
        self.register_buffer("spread", torch.ones(()))  # variance of the key targets about their mean

    @torch.no_grad()
    def fit(self, keys: Tensor) -> None:
        """Fix the key targets from a sample of teacher keys (n, C), and start the student's keys at their mean."""
        dim = self.vit.embed_dim
        self.basis.copy_(fit_basis(keys, dim=dim, heads=self.basis.shape[0]))
        targets = key_targets(keys, self.basis)
        self.spread.copy_(targets.var(dim=0).mean())
        norm, qkv = self.vit.blocks[-1].norm1, self.vit.blocks[-1].attn.qkv
        weight = nn.init.trunc_normal_(torch.empty(dim, dim), std=0.02) / norm.weight.square().mean().sqrt()
        qkv.weight[dim : 2 * dim] = weight
        qkv.bias[dim : 2 * dim] = targets.mean(dim=0) - weight @ norm.bias

    def forward(self, batch: dict[str, Tensor], *, queries: int, sharpness: float) -> dict[str, Tensor]:
        """The losses on a batch of I pairs; `images` (I, 2, 3, H, W) normalised, the rest as in `teach`."""
        keys, tokens, cls = encode(self.vit, batch["images"].flatten(0, 1))
        keys = unit(keys).unflatten(0, (-1, 2))
        error = (keys - key_targets(batch["keys"], self.basis)).square().mean() / self.spread
        both, taught = keys.flatten(1, 2), unit(batch["keys"]).flatten(1, 2)  # (I, 2N, .)
        picked = torch.randperm(both.shape[1], device=both.device)[:queries]
        relation = attention_kl(both, taught, picked, heads=self.basis.shape[0], sharpness=sharpness)
        token = 1 - F.cosine_similarity(self.to_tokens(tokens), batch["tokens"].flatten(0, 1).float(), dim=-1).mean()
        cls = 1 - F.cosine_similarity(self.to_cls(cls), batch["cls"].flatten(0, 1).float(), dim=-1).mean()
        return {"key": error, "relation": relation, "token": token, "cls": cls}
