"""Fill a timm ViT from a checkpoint: DINO's and its successors' formats, under the names of whoever published them."""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.run.checkpoints import STUDENT_KEY, hash_tensors, load_metadata, load_tensors

EMBEDDED = "embedded"  # value of `--backbone` and `--resume_path` for the files in assets/
ASSETS = Path(__file__).resolve().parent.parent / "assets"
BACKBONE_FILE = ASSETS / "embedded_backbone.safetensors"
BLOCK_FILE = ASSETS / "embedded_block.safetensors"

# Wrappers that training frameworks put around a ViT, and the heads they put beside it; MAE's head is its decoder.
_WRAPPERS = ("module.", "model.", "backbone.", "encoder.")
_HEADS = ("head.", "dino_head.", "ibot_head.", "decoder_")
# Where a training checkpoint keeps a model: DINO's full file (its teacher is the published model), the reference
# implementation's file, and common training scripts.
_MODEL_KEYS = ("teacher", "model_state_dict", "state_dict", "model")

# Hugging Face's names of ViT, DINOv2 and DINOv3 -> the official ones. The queries, keys and values of a layer are
# tensors of their own there, see `_join_qkv`.
_HF_MARK = re.compile(r"(.*?)embeddings\.(cls_token|patch_embeddings\.|position_embeddings|register_tokens)")
_HF_HEADS = ("pooler.", "classifier.", "decoder.", "lm_head.", "embeddings.mask_token")
_HF_NAMES = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"(?:encoder\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"(blocks\.\d+)\.attention\.(?:attention\.)?(query|key|value)\.", r"\1.attn.\2."),
    (r"(blocks\.\d+)\.attention\.([qkv])_proj\.", r"\1.attn.\2."),
    (r"(blocks\.\d+)\.attention\.(?:output\.dense|o_proj)\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.layernorm_before\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.layernorm_after\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.(?:intermediate\.dense|mlp\.up_proj)\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.(?:output\.dense|mlp\.down_proj)\.", r"\1.mlp.fc2."),
    (r"(blocks\.\d+)\.mlp\.weights_in\.", r"\1.mlp.w12."),
    (r"(blocks\.\d+)\.mlp\.weights_out\.", r"\1.mlp.w3."),
    (r"(blocks\.\d+)\.layer_scale(\d)\.lambda1", r"\1.ls\2.gamma"),
    (r"layernorm\.", "norm."),
]

# For the name of a backbone that fits: sizes by (width, layers), as timm calls them.
_SIZES = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1536, 40): "giant"}
# The types that weights may have; they become float32.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_REFERENCE_BLOCKS = "temporal_transformer."  # before the names of a block in the reference implementation's file
_REGISTERS = ("reg_token", "register_tokens", "storage_tokens")


def load_vit_weights(
    vit: nn.Module, weights: str | Path | dict[str, Any], *, name: str, checkpoint_key: str | None = None
) -> None:
    """Fill `vit` in place from a file or its content; every parameter is filled and every key explained.

    Understood: a bare state dict (DINO's backbone-only file, timm's, official DINOv2/DINOv3, Hugging Face's of these
    three), a training checkpoint that holds one under `teacher`, `student`, `model` and so on, the reference
    implementation's file, any of them in half precision, as `.pth`, `.pt` or `.safetensors`. Wrapper prefixes are
    stripped and projection heads dropped.

    Raises:
        UserError: the file holds something else, a ViT of another shape, or not exactly these parameters; names the
            keys and the flag to mend.
    """
    source = "weights" if isinstance(weights, dict) else str(weights)
    content = weights if isinstance(weights, dict) else load_tensors(weights)
    if not isinstance(weights, dict):
        check_holds_vit(content, source=source)
    state = _select_model(content, checkpoint_key, source)
    if not _holds_tensors(state):
        only = f", only {', '.join(map(str, [*state][:4]))}" if state else ""
        raise UserError(f"{source}: holds no weights{only}; give the file of the backbone's weights")
    _check_kinds(state, source)
    if _is_hugging_face(state):
        source = f"{source} (with the names of Hugging Face)"
        state = _join_qkv(rename_from_hugging_face(state), source)
    state = _strip(state, source)
    _check_shape(state, vit, name, source)
    state = _convert(state, vit, name, source)
    mend = "give the --backbone that the file was made for"
    check_exact(state, vit.state_dict(), source=source, what=f"--backbone {name}", mend=mend)
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(f"{source}: {broken[0]} holds values that are not finite; fetch the file again")
    vit.load_state_dict(state, strict=True)


def check_holds_vit(content: dict[str, Any], *, source: str) -> None:
    """Raise `UserError` where a file holds a trained block and no backbone."""
    inner = content.get("model_state_dict", content)
    names = [str(key).removeprefix("module.") for key in inner] if isinstance(inner, dict) else []
    alone = names and all(re.match(r"(temporal_transformer\.)?\d+\.(norm1|attn|norm2|mlp)\.", key) for key in names)
    if isinstance(content.get("blocks"), dict) or alone:
        raise UserError(f"{source}: holds a trained spatio-temporal block and no backbone; give it as --resume_path, "
                        "and as --dino_path the weights of the backbone that it was trained on")  # fmt: skip


def find_blocks(content: dict[str, Any], *, source: str) -> dict[str, Tensor]:
    """Select the state dict of the blocks, keys `{j}.norm1.weight` and so on, from either checkpoint format."""
    if isinstance(content.get("blocks"), dict):
        state = content["blocks"]
    else:
        inner = content.get("model_state_dict", content)
        inner = inner if isinstance(inner, dict) else {}
        names = {str(key).removeprefix("module."): key for key in inner}
        state = {
            name.removeprefix(_REFERENCE_BLOCKS): inner[key]
            for name, key in names.items()
            if name.startswith(_REFERENCE_BLOCKS)
        }
    if not state or not all(
        isinstance(value, Tensor) and isinstance(key, str) and key.split(".")[0].isdigit()
        for key, value in state.items()
    ):
        if found := _describe_vit(content):
            raise UserError(f"{source}: holds {found} and no spatio-temporal block; give it as --dino_path, and as "
                            "--resume_path a checkpoint made by train.py (or --training_free for none)")  # fmt: skip
        raise UserError(f"{source}: holds no spatio-temporal block; give a checkpoint made by train.py")
    return state


def holds_encoder(content: dict[str, Any]) -> bool:
    """Tell whether a checkpoint is in the reference's format, with the backbone (`encoder.*`) in the same file."""
    inner = content.get("model_state_dict")
    return isinstance(inner, dict) and any(str(key).removeprefix("module.").startswith("encoder.") for key in inner)


def _describe_vit(content: dict[str, Any]) -> str | None:
    """Describe the ViT that a file holds, in words; None if it holds no known ViT."""
    for state in (content, *(content.get(key) for key in _MODEL_KEYS)):
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            continue
        state = rename_from_hugging_face(state) if _is_hugging_face(state) else state
        for wrapper in _WRAPPERS:
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
        if shape := _shape_in(state):
            return str(shape)
    return None


# ------------------------------------------------------------------ formats


def _select_model(content: dict[str, Any], checkpoint_key: str | None, source: str) -> dict[str, Any]:
    """Select the state dict of the model in the content of a file."""
    if checkpoint_key is not None:
        if not isinstance(content.get(checkpoint_key), dict):
            held = [key for key, value in content.items() if isinstance(value, dict)]
            raise UserError(f"{source}: holds no model under --checkpoint_key {checkpoint_key}; "
                            f"it holds {', '.join(held) or 'one bare state dict: leave the flag out'}")  # fmt: skip
        return content[checkpoint_key]
    for key in _MODEL_KEYS:
        if isinstance(content.get(key), dict):
            return content[key]
    held = [key for key, value in content.items() if _holds_tensors(value)]
    if held and not _holds_tensors(content):
        raise UserError(f"{source}: holds a model under {', '.join(held)}; say which: --checkpoint_key {held[0]}")
    return content


def _holds_tensors(state: Any) -> bool:
    return isinstance(state, dict) and any(isinstance(value, Tensor) for value in state.values())


def _is_hugging_face(state: dict[str, Any]) -> bool:
    return any(isinstance(key, str) and _HF_MARK.match(key) for key in state)


def _check_kinds(state: dict[str, Any], source: str) -> None:
    """Refuse tensors that are quantised, sparse, without values or otherwise no plain floating-point tensors."""
    for key, value in state.items():
        # Heads with a batch norm count their batches; they are dropped later.
        if not isinstance(value, Tensor) or str(key).endswith("num_batches_tracked"):
            continue
        kind = "nested" if value.is_nested else "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
        if kind != "strided" or value.dtype not in _DTYPES:
            what = f"{'' if kind == 'strided' else f'{kind} '}{str(value.dtype).removeprefix('torch.')}"
            raise UserError(f"{source}: {key} is a tensor of {what}; give dense weights of float32, float16, bfloat16 "
                            "or float64, not quantised ones")  # fmt: skip


def rename_from_hugging_face(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the keys of Hugging Face's ViT, DINOv2 or DINOv3 to the official names; other keys keep their names.

    Queries, keys and values remain tensors of their own, see `_join_qkv`.
    """
    prefix = next(found[1] for key in state if isinstance(key, str) and (found := _HF_MARK.match(key)))
    heads = tuple(f"{before}{head}" for before in {"", prefix} for head in _HF_HEADS)
    registers = "embeddings.register_tokens"
    is_dinov3 = not any("position_embeddings" in str(key) for key in state)
    renamed = {}
    for key, value in state.items():
        if not isinstance(key, str) or key.startswith(heads):
            continue
        key = key.removeprefix(prefix)
        for pattern, name in _HF_NAMES:
            key = re.sub(f"^{pattern}", name, key)
        renamed[key.replace(registers, "storage_tokens" if is_dinov3 else "register_tokens")] = value
    if "register_tokens" in renamed:  # by this token timm knows DINOv2's own names
        renamed["mask_token"] = torch.zeros(1)
    return renamed


def _join_qkv(state: dict[str, Any], source: str) -> dict[str, Any]:
    """Concatenate queries, keys and values of a layer to one `qkv`; a bias that one of them lacks is 0."""
    joined, parts = {}, {}
    for key, value in state.items():
        found = re.match(r"(blocks\.\d+\.attn\.)([qkv])(?:uery|ey|alue)?\.(weight|bias)$", key)
        if found and isinstance(value, Tensor):
            parts.setdefault(f"{found[1]}qkv.{found[3]}", {})[found[2]] = value
        else:
            joined[key] = value
    for key, found in parts.items():
        if key.endswith("weight") and len(found) < 3:
            continue  # a file that is not whole: the missing key is named later
        some = next(iter(found.values()))
        if some.ndim == 0 or any(value.shape != some.shape for value in found.values()):
            shapes = ", ".join(f"{part} {tuple(value.shape)}" for part, value in found.items())
            raise UserError(f"{source}: the parts of {key} do not fit together ({shapes}); fetch the file again")
        joined[key] = torch.cat([found.get(part, torch.zeros_like(some)) for part in "qkv"])
    return joined


def _strip(state: dict[str, Any], source: str) -> dict[str, Tensor]:
    """Remove wrapper prefixes and projection heads. With a wrapper around the ViT, all outside it must be a head."""
    strangers = [key for key, value in state.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
    if strangers:
        raise UserError(f"{source}: '{strangers[0]}' is no tensor; this is no state dict of a ViT")
    for wrapper in _WRAPPERS:
        if any(key.startswith(wrapper) for key in state):
            outside = [key for key in state if not key.startswith((wrapper, *_HEADS, "temporal_transformer."))]
            if outside:
                raise UserError(f"{source}: unexplained keys beside '{wrapper}*': {', '.join(outside[:4])}")
            state = {key.removeprefix(wrapper): value for key, value in state.items() if key.startswith(wrapper)}
    return {key: value for key, value in state.items() if not key.startswith(_HEADS)}


def _convert(state: dict[str, Tensor], vit: nn.Module, name: str, source: str) -> dict[str, Tensor]:
    """Convert official names by timm's own filter (registers, SwiGLU, position embeddings of another grid)."""
    positions = state.get("pos_embed")
    if positions is not None and positions.ndim != 3:
        raise UserError(f"{source}: pos_embed has the shape {tuple(positions.shape)} and not (1, tokens, width); "
                        "give the --backbone that the file was made for")  # fmt: skip
    try:
        with contextlib.redirect_stdout(None):  # it prints what it tried
            return sys.modules[type(vit).__module__].checkpoint_filter_fn(state, vit)
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{source}: its position embeddings or names do not fit --backbone {name}; "
                        "give the --backbone that the file was made for") from error  # fmt: skip


# ------------------------------------------------------------------ shapes


class _Shape(NamedTuple):
    """Shape of a ViT, as far as its weights show it."""

    width: int
    layers: int
    patch_size: int
    registers: int

    def __str__(self) -> str:
        registers = f" and {self.registers} register tokens" if self.registers else ""
        return f"a ViT of width {self.width}, {self.layers} layers, patch size {self.patch_size}{registers}"


def _shape_in(state: dict[str, Any]) -> _Shape | None:
    """Read the shape of the ViT in a state dict; None if it holds no ViT."""
    patches = state.get("patch_embed.proj.weight")
    layers = {int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", str(key)))}
    if not isinstance(patches, Tensor) or patches.ndim != 4 or not layers:
        return None
    registers = (state[key] for key in _REGISTERS if isinstance(state.get(key), Tensor) and state[key].ndim == 3)
    return _Shape(patches.shape[0], 1 + max(layers), patches.shape[-1], sum(value.shape[1] for value in registers))


def _check_shape(state: dict[str, Tensor], vit: nn.Module, name: str, source: str) -> None:
    """Refuse a ViT of another shape before timm resamples what it can, such as the patch embedding, without a word."""
    if not any(key.startswith(("cls_token", "blocks.")) for key in state):
        raise UserError(f"{source}: {_explain_no_vit(state, name)}")
    held, wanted = _shape_in(state), _shape_in(vit.state_dict())
    if held is None or held == wanted:
        return
    import timm

    close = [found for found in _names_for(held, state) if timm.is_model(found)]
    mend = f"give --backbone {close[0]}" if close else "give the --backbone that the file was made for"
    raise UserError(f"{source}: holds {held}; --backbone {name} is {wanted}; {mend}")


def _explain_no_vit(state: dict[str, Tensor], name: str) -> str:
    """Explain that a state dict holds no ViT, or that its ViTs have prefixes that are not known; with the mend."""
    patches = "patch_embed.proj.weight"
    prefixes = [key.removesuffix(patches) for key in state if key.endswith(f".{patches}")]
    if not prefixes:
        return f"holds no ViT (its keys begin with {', '.join([*state][:3])}); give the weights of --backbone {name}"
    save = "torch.save({k.removeprefix(P): v for k, v in state.items() if k.startswith(P)}, FILE)"
    return f"holds a ViT under {' and '.join(prefixes)}; save one alone, P = '{prefixes[0]}': {save}"


def _names_for(shape: _Shape, state: dict[str, Tensor]) -> list[str]:
    """List timm's names of published ViTs of a shape, the likeliest first."""
    size, patch = _SIZES.get((shape.width, shape.layers)), shape.patch_size
    if "storage_tokens" in state:
        return [f"vit_{size}_patch{patch}_dinov3"]
    if any(".ls1." in key for key in state):
        return [f"vit_{size}_patch{patch}{f'_reg{shape.registers}' if shape.registers else ''}_dinov2"]
    return [] if shape.registers else [f"vit_{size}_patch{patch}_224"]


def check_exact(state: dict[str, Tensor], target: dict[str, Tensor], *, source: str, what: str, mend: str) -> None:
    """Raise `UserError` unless `state` has the keys and shapes of `target`, the state dict of `what`."""
    missing = [key for key in target if key not in state]
    unexplained = [key for key in state if key not in target]
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(target[key].shape)}"
        for key in target
        if key in state and state[key].shape != target[key].shape
    ]
    problems = [
        f"{len(names)} {label}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for label, names in (("of another shape", misshapen), ("missing", missing), ("unexplained", unexplained))
        if names
    ]
    if problems:
        raise UserError(f"{source}: does not fill {what} exactly ({'; '.join(problems)}); {mend}")


def checkpoint_path(path: str | None) -> str | None:
    """Resolve the path of a checkpoint on the command line: `embedded` stands for a file in `assets/`."""
    return str(BLOCK_FILE) if path == EMBEDDED else path


class BackboneIdentity(NamedTuple):
    """Name what results depend on of a backbone.

    name: as `--backbone` takes it. sha256: of its weights, as `Backbone.weights_hash`. patch_size: (height, width) of
    its patches in pixels.
    """

    name: str
    sha256: str
    patch_size: tuple[int, int]


def identify_embedded() -> BackboneIdentity:
    """Identify the embedded backbone by its file, without building it, for which timm would have to be imported."""
    side = load_metadata(BACKBONE_FILE, STUDENT_KEY)["patch_size"]
    return BackboneIdentity(EMBEDDED, hash_tensors(load_tensors(BACKBONE_FILE)), (side, side))
