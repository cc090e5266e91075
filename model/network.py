"""Join backbone and block in one network, the one path from frames to tokens in training and inference."""

from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn

from model.block import SpatioTemporalBlock
from model.weights import check_exact, find_blocks, holds_encoder
from utils.errors import UserError

if TYPE_CHECKING:  # timm takes seconds to import, and a run that finds all its results needs no network
    from model.backbone import Backbone


class SpatioTemporalNetwork(nn.Module):
    """Run a frozen backbone and one trained spatio-temporal block (or several: `num_blocks`, the paper's num_t).

    Args:
        backbone: computes the key features of each frame.
        with_cls: put each frame's CLS token before its key features in training (docs/method.md, section 2);
            inference never uses it.
    """

    def __init__(
        self, backbone: "Backbone", *, num_blocks: int = 1, num_heads: int = 8, with_cls: bool = True,
        drop: float = 0.1, attn_drop: float = 0.4,
    ):  # fmt: skip
        super().__init__()
        if backbone.dim % num_heads:
            raise UserError(f"--num_heads {num_heads}: does not divide the width {backbone.dim} of {backbone.name}")
        if with_cls and not backbone.has_cls:
            raise UserError(f"--backbone {backbone.name}: has no CLS token; add --no-with_cls")
        self.backbone = backbone
        self.with_cls = with_cls
        self.blocks = nn.ModuleList(
            SpatioTemporalBlock(backbone.dim, num_heads=num_heads, drop=drop, attn_drop=attn_drop)
            for _ in range(num_blocks)
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Run the training path over whole clips.

        Args:
            frames: (B, T, 3, H, W), uint8 or float in [0, 1], RGB.

        Returns:
            tokens (B, T, N, C): output tokens of the last block, CLS rows dropped. attn (B, T*N, T*N): its
            attention averaged over heads, CLS rows and columns dropped and not renormalised: rows sum to <= 1.
        """
        return self.link(self.embed(frames))

    def embed(self, frames: Tensor) -> Tensor:
        """Embed clips (B, T, 3, H, W) as the input of the blocks: (B, T, N, C), or (B, T, 1 + N, C) with CLS tokens."""
        keys, cls = self.backbone(frames.flatten(0, 1), with_cls=self.with_cls)
        x = keys if cls is None else torch.cat([cls[:, None], keys], dim=1)
        return x.unflatten(0, frames.shape[:2])

    def link(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks on embedded clips; returns what `forward` does."""
        clip_length, first = x.shape[1], int(self.with_cls)  # index of the first patch token of a frame
        x = x.flatten(1, 2)
        for block in self.blocks:
            x, attn = block(x)
        tokens = rearrange(x, "b (t n) c -> b t n c", t=clip_length)[:, :, first:]
        attn = rearrange(attn, "b (t n) (s m) -> b t n s m", t=clip_length, s=clip_length)
        return tokens, rearrange(attn[:, :, first:, :, first:], "b t n s m -> b (t n) (s m)")

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Compute key features (B, N, C) of single frames (B, 3, H, W), for inference."""
        return self.backbone(frames)[0]

    @torch.no_grad()
    def refine(self, features: Tensor, key_frames: list[int], *, chunk: int = 512) -> Tensor:
        """Run all blocks but the last on the key features (T, N, C) of a video.

        The features are overwritten, in memory or on disk. As in the last block, only tokens of the key frames are
        attended to. With one block, the usual case, the features are returned as they are.
        """
        for block in self.blocks[:-1]:
            device = block.norm1.weight.device
            context = features[key_frames].flatten(0, 1)[None].to(device)
            for piece in features.flatten(0, 1).split(chunk):
                piece.copy_(block(piece[None].to(device), context)[0][0])
        return features

    @torch.no_grad()
    def queries(self, features: Tensor) -> Tensor:
        """Compute queries (M, L, C/M) of the last block for tokens (L, C)."""
        return self.blocks[-1].queries(features[None])[0]

    @torch.no_grad()
    def keys(self, features: Tensor) -> Tensor:
        """Compute keys (M, S, C/M) of the last block for tokens (S, C)."""
        return self.blocks[-1].keys(features[None])[0]

    def init_blocks(self, init: str, *, temperature: float) -> None:
        """Initialise the blocks: `random`, or `identity`, the training-free block of docs/method.md, section 2."""
        for block in self.blocks:
            if init == "identity":
                block.init_identity(temperature=temperature)
            else:
                block.init_random()

    def load_blocks(self, content: dict[str, Any], *, source: str) -> None:
        """Fill the blocks from a checkpoint of this program or of the released implementation.

        Raises:
            UserError: the file holds no block, or one of another width or depth; names `source` and the mend.
        """
        state = find_blocks(content, source=source)
        depth = 1 + max(int(key.split(".")[0]) for key in state)
        width = state["0.norm1.weight"].numel() if "0.norm1.weight" in state else 0
        if depth != len(self.blocks):
            raise UserError(f"{source}: holds {depth} spatio-temporal block(s); give --num_t {depth}")
        if width != self.backbone.dim:
            raise UserError(f"{source}: its block has width {width}, the backbone {self.backbone.name} "
                            f"{self.backbone.dim}; give the --backbone it was trained with")  # fmt: skip
        check_exact(state, self.blocks.state_dict(), source=source, what="a spatio-temporal block",
                    mend="give a checkpoint made by train.py")  # fmt: skip
        self.blocks.load_state_dict(state, strict=True)
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise UserError(f"{source}: its block holds values that are not finite; give an earlier checkpoint")


def build_network(
    *,
    backbone: str,
    dino_path: str | None = None,
    checkpoint: dict[str, Any] | None = None,
    source: str = "",
    checkpoint_key: str | None = None,
    image_stats: str = "imagenet",
    **block_options: Any,
) -> SpatioTemporalNetwork:
    """Build a network with the weights of its backbone and, if a checkpoint is given, of its blocks.

    The backbone's weights come from a checkpoint in the reference's format, which holds them too; otherwise from
    `dino_path`; otherwise timm downloads them.

    Args:
        checkpoint: content of a checkpoint of either format; None leaves the blocks at their random initial weights.
        source: where `checkpoint` came from, for messages.
        block_options: for `SpatioTemporalNetwork`.
    """
    from model.backbone import build_backbone

    whole = checkpoint is not None and holds_encoder(checkpoint)
    network = SpatioTemporalNetwork(
        build_backbone(
            backbone,
            weights=checkpoint if whole else dino_path,
            checkpoint_key=None if whole else checkpoint_key,
            image_stats=image_stats,
        ),
        **block_options,
    )
    if checkpoint is not None:
        network.load_blocks(checkpoint, source=source)
    return network


def check_origin(content: dict[str, Any], network: SpatioTemporalNetwork, *, num_heads: int, source: str) -> None:
    """Refuse a checkpoint of train.py whose block was trained with other heads or on another backbone's keys.

    Checkpoints of the released implementation, which do not record either, are accepted.

    Raises:
        UserError: naming the flag to mend.
    """
    config, backbone = content.get("config"), content.get("backbone")
    if not isinstance(config, dict) or not isinstance(backbone, dict):
        return
    if config.get("num_heads") != num_heads:
        raise UserError(f"--num_heads {num_heads}: the block of {source} has {config.get('num_heads')}; give that")
    if backbone.get("sha256") != network.backbone.weights_hash():
        raise UserError(
            f"{source}: its block was trained on other weights of {backbone.get('name')}; give those as --dino_path "
            "(and --backbone)"
        )
