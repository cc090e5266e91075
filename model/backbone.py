"""Compute key features and CLS tokens of frames with a frozen timm ViT (docs/method.md, section 1)."""

import difflib
import logging
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from model.weights import BACKBONE_FILE, EMBEDDED, BackboneIdentity, check_holds_vit, load_vit_weights
from utils.errors import NoWeights, UserError, is_out_of_memory
from utils.progress import log_line
from utils.run.checkpoints import STUDENT_KEY, hash_tensors, load_metadata, load_tensors

# Mean and standard deviation of RGB in [0, 1]. `reference` is what the paper's released evaluation normalises
# with, though it trains with ImageNet's (docs/method.md, section 6).
IMAGE_STATS = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "reference": ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
}


class Backbone(nn.Module):
    """Compute key features with a frozen ViT, which stays in evaluation mode and never builds a graph.

    Attributes:
        dim: width C of the key features.
        patch_size: (height, width) of a patch in pixels.
        has_cls: whether the ViT has a CLS token.
        cls_alone: whether the last block can be computed for the CLS token alone.
    """

    def __init__(self, vit: nn.Module, *, name: str, image_stats: str = "imagenet"):
        super().__init__()
        self.name = name
        self.vit = vit.eval().requires_grad_(False)
        self.patch_size: tuple[int, int] = tuple(vit.patch_embed.patch_size)
        self.has_cls = getattr(vit, "cls_token", None) is not None
        self.dim = _key_projection(vit.blocks[-1].attn)[0].shape[0]
        self.cls_alone = self.has_cls and _is_usual(vit.blocks[-1])
        mean, std = IMAGE_STATS[image_stats]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode, whatever the mode of the parent module."""
        return super().train(False)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Compute the token grid (h, w) of a frame of `height` x `width` pixels."""
        return height // self.patch_size[0], width // self.patch_size[1]

    def weights_hash(self) -> str:
        """Compute the SHA-256 of the weights, the same for the same weights from any file."""
        return hash_tensors(self.vit.state_dict())

    def identify(self) -> BackboneIdentity:
        return BackboneIdentity(self.name, self.weights_hash(), self.patch_size)

    def settings(self) -> dict[str, Any]:
        """List all settings that features depend on, except the frame, precision, device and libraries."""
        return {
            "name": self.name, "sha256": self.weights_hash(), "architecture": repr(self.vit),
            "num_heads": self.vit.blocks[-1].attn.num_heads,
            "stats": self.mean.flatten().tolist() + self.std.flatten().tolist(),
        }  # fmt: skip

    @torch.no_grad()
    def forward(self, images: Tensor, *, with_cls: bool = False) -> tuple[Tensor, Tensor | None]:
        """Compute key features, and optionally the CLS token, of single frames.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1], RGB; H and W multiples of the patch size.
            with_cls: also return the CLS token; without it nothing past the last layer's keys is computed.

        Returns:
            keys (B, h*w, C): key vectors of the last layer's self-attention, heads concatenated, before any
            rotary embedding. cls (B, C): CLS entry of the last layer's output before the final norm, or None.
        """
        images = (_to_unit_range(images) - self.mean) / self.std
        last = self.vit.blocks[-1]
        if not with_cls or self.cls_alone:
            hidden = self._run_until(images, block=len(self.vit.blocks) - 2)
            normed = last.norm1(hidden)  # pre-norm, as checked
            return self._keys_and_cls(hidden, normed) if with_cls else (self._keys(normed), None)
        attention_input = []
        hook = last.attn.register_forward_pre_hook(lambda _, args: attention_input.append(args[0]))
        try:
            output = self._run_until(images, block=len(self.vit.blocks) - 1)
        finally:
            hook.remove()
        return self._keys(attention_input[0]), output[:, 0]

    def _run_until(self, images: Tensor, *, block: int) -> Tensor:
        """Run the ViT up to a block and return its output (B, prefix + h*w, C)."""
        (output,) = self.vit.forward_intermediates(
            images, indices=[block], stop_early=True, intermediates_only=True, output_fmt="NLC", norm=False,
            return_prefix_tokens=self.vit.num_prefix_tokens > 0,
        )  # fmt: skip
        if isinstance(output, tuple):
            patches, prefix = output
            return torch.cat([prefix, patches], dim=1)
        return output

    def _keys_and_cls(self, hidden: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what `forward` returns from the last block's input, before and after its norm: (B, prefix + N, C).

        Keys and values are computed for all tokens, query, projection and MLP for the CLS token alone: a sixth of the
        block's arithmetic.
        """
        block = self.vit.blocks[-1]
        attn, qkv = block.attn, block.attn.qkv
        queried, rest = (None, None) if qkv.bias is None else qkv.bias.split([self.dim, 2 * self.dim])
        query = F.linear(normed[:, :1], qkv.weight[: self.dim], queried)
        keys, values = F.linear(normed, qkv.weight[self.dim :], rest).chunk(2, dim=-1)
        heads = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in (query, keys, values))
        seen = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        cls = hidden[:, :1] + block.ls1(attn.proj(seen))
        cls = cls + block.ls2(block.mlp(block.norm2(cls)))
        return keys[:, self.vit.num_prefix_tokens :], cls[:, 0]

    def _keys(self, attention_input: Tensor) -> Tensor:
        """Project patch tokens by the key third of the last qkv.

        The keys come from the attention's input, so that any fused attention inside the installed timm will do.
        """
        weight, bias = _key_projection(self.vit.blocks[-1].attn)
        return F.linear(attention_input[:, self.vit.num_prefix_tokens :], weight, bias)


def build_backbone(
    name: str,
    *,
    weights: str | Path | dict[str, Any] | None = None,
    checkpoint_key: str | None = None,
    image_stats: str = "imagenet",
) -> Backbone:
    """Build a frozen backbone with every parameter filled.

    Args:
        name: any timm ViT, or `embedded`: the small one in `assets/`, or another file of its kind as `weights`.
        weights: a checkpoint file (see `load_vit_weights`) or its content; None lets timm download the weights.
        checkpoint_key: which model of a training checkpoint, such as `teacher` or `student`.
        image_stats: a key of `IMAGE_STATS`.

    Raises:
        UserError: unknown name, not a ViT, download failed, or the file does not fill the model exactly.
    """
    if name == EMBEDDED:
        return Backbone(_load_student(weights or BACKBONE_FILE), name=name, image_stats=image_stats)
    if name not in _known_names():
        close = ", ".join(difflib.get_close_matches(name, _known_names(), n=3)) or "none by a similar name"
        raise UserError(f"--backbone {name}: neither '{EMBEDDED}' nor known to timm; close: {close}")
    if weights is None:
        return Backbone(_download(name), name=name, image_stats=image_stats)
    vit = _create(name, pretrained=False)
    load_vit_weights(vit, weights, name=name, checkpoint_key=checkpoint_key)
    return Backbone(vit, name=name, image_stats=image_stats)


@cache
def _known_names() -> frozenset[str]:
    """List the names of timm's models, with and without the tag of their weights."""
    return frozenset([*timm.list_models(), *timm.list_pretrained()])


def _load_student(weights: str | Path | dict[str, Any]) -> VisionTransformer:
    """Load a ViT whose file says in its header how it is built, as that of the embedded one does.

    A dictionary, the content of a checkpoint that holds a backbone, fills a ViT of the embedded shape.
    """
    path = BACKBONE_FILE if isinstance(weights, dict) else weights
    if (options := load_metadata(path, STUDENT_KEY)) is None:
        check_holds_vit(load_tensors(path), source=str(path))
        raise UserError(f"{path}: does not say how its ViT is built, as assets/embedded_backbone.safetensors does; "
                        f"give the --backbone that it was made for instead of {EMBEDDED}")  # fmt: skip
    try:
        vit = VisionTransformer(**options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{path}: '{STUDENT_KEY}' in its header builds no ViT ({error}); fetch it again") from error
    load_vit_weights(vit, weights, name=EMBEDDED)
    return vit


def _create(name: str, *, pretrained: bool) -> nn.Module:
    try:
        vit = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
    except TypeError as error:
        raise UserError(
            f"--backbone {name}: not a plain ViT (it takes no dynamic image size); choose another"
        ) from error
    _check_is_vit(vit, name)
    return vit


def _download(name: str) -> nn.Module:
    log_line(f"downloading the weights of {name} (or give a file as --dino_path)", all_processes=True)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the one error below says it all
    try:
        return _create(name, pretrained=True)
    except UserError:
        raise
    except Exception as error:  # each download library has its own errors; all mean the same to the user
        if is_out_of_memory(error):
            raise
        raise NoWeights(
            f"--backbone {name}: its weights could not be downloaded ({type(error).__name__}); "
            f"fetch {_weights_address(name)} elsewhere and give it as --dino_path FILE"
        ) from error


def _weights_address(name: str) -> str:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        return "weights for it (timm publishes none: name a variant such as vit_small_patch8_224.dino)"
    if config.hf_hub_id:
        full_name = name if "." in name or not config.tag else f"{name}.{config.tag}"
        repository = config.hf_hub_id if not config.hf_hub_id.endswith("/") else config.hf_hub_id + full_name
        return f"https://huggingface.co/{repository}/resolve/main/model.safetensors"
    return config.url


def _check_is_vit(vit: nn.Module, name: str) -> None:
    blocks = getattr(vit, "blocks", None)
    if not (
        isinstance(blocks, nn.ModuleList | nn.Sequential)
        and len(blocks) >= 2
        and all(hasattr(blocks[-1], part) for part in ("norm1", "attn"))
        and hasattr(vit, "forward_intermediates")
        and hasattr(vit, "num_prefix_tokens")
        and _has_key_projection(blocks[-1].attn)
        and not hasattr(vit.patch_embed, "backbone")  # hybrid: its patches do not tile the image
    ):
        raise UserError(f"--backbone {name}: not a plain ViT with self-attention blocks; choose another")


def _is_usual(block: nn.Module) -> bool:
    """Tell whether a block is computed as in the first ViTs, with at most a scale on each branch."""
    if type(block) is not Block or type(block.attn) is not Attention or block.attn.scale != block.attn.head_dim**-0.5:
        return False
    parts = [getattr(block.attn, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
    return all(part is None or isinstance(part, nn.Identity) for part in parts)


def _has_key_projection(attention: nn.Module) -> bool:
    return any(isinstance(getattr(attention, part, None), nn.Linear) for part in ("qkv", "k_proj"))


def _key_projection(attention: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Select the weight (C, C) and bias (C) or None that make keys, of a joint or a split qkv.

    timm's Eva (DINOv3) keeps the biases of a fused qkv apart and fixes that of the keys at zero.
    """
    if isinstance(getattr(attention, "qkv", None), nn.Linear):
        weight = attention.qkv.weight.chunk(3)[1]
        bias = attention.qkv.bias.chunk(3)[1] if attention.qkv.bias is not None else getattr(attention, "k_bias", None)
        return weight, bias
    return attention.k_proj.weight, attention.k_proj.bias


def _to_unit_range(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images
