import argparse
import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from model.backbone import Backbone, build_backbone
from tests.conftest import TINY_BACKBONE
from utils.errors import UserError


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return timm.create_model(TINY_BACKBONE, num_classes=0).state_dict()


def save(tmp_path, content, name="weights.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


def assert_holds(backbone: Backbone, state, atol: float = 0.0):
    for name, value in backbone.vit.state_dict().items():
        torch.testing.assert_close(value, state[name].float(), atol=atol, rtol=0)


def full_checkpoint(student, teacher):
    """The structure of DINO's full checkpoint."""

    def wrapped(model, prefix):
        head = {f"{prefix}head.mlp.0.weight": torch.zeros(4, 64), f"{prefix}head.last_layer.weight_g": torch.ones(4, 1)}
        return {f"{prefix}backbone.{key}": value for key, value in model.items()} | head

    return {
        "student": wrapped(student, "module."),
        "teacher": wrapped(teacher, ""),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
    }


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3",
                                  "deit_tiny_distilled_patch16_224", "vit_small_patch16_dinov3_qkvb"])  # fmt: skip
def test_keys_and_cls_are_the_last_layers(name):
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    backbone = Backbone(vit, name=name)
    patch = backbone.patch_size[0]
    images = torch.rand(2, 3, 3 * patch, 5 * patch)
    keys, cls = backbone(images, with_cls=True)
    alone, none = backbone(images)
    assert none is None
    torch.testing.assert_close(alone, keys)
    assert backbone.cls_alone == ("dinov3" not in name)
    backbone.cls_alone = False
    for short, whole in zip((keys, cls), backbone(images, with_cls=True), strict=True):
        torch.testing.assert_close(short, whole)

    # Independently: the whole forward pass, with the last attention's input and the last block's output recorded.
    seen = {}
    vit.blocks[-1].attn.register_forward_pre_hook(lambda _, args: seen.update(attention_input=args[0]))
    vit.blocks[-1].register_forward_hook(lambda _, args, output: seen.update(output=output))
    with torch.no_grad():
        vit.forward_features((images - backbone.mean) / backbone.std)
        qkv = vit.blocks[-1].attn.qkv(seen["attention_input"])
    expected = qkv.chunk(3, dim=-1)[1][:, vit.num_prefix_tokens :]  # the key bias of Eva is zero
    assert keys.shape == (2, 15, backbone.dim)
    torch.testing.assert_close(keys, expected)
    torch.testing.assert_close(cls, seen["output"][:, 0])


def test_frozen_and_stops_early(tiny_weights):
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights)
    calls = []
    backbone.vit.blocks[-1].mlp.register_forward_hook(lambda *_: calls.append("mlp"))
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    keys, _ = backbone(torch.rand(1, 3, 32, 48))
    assert not keys.requires_grad
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert calls == []
    backbone(torch.rand(1, 3, 32, 48), with_cls=True)
    assert calls == ["mlp"]


def test_uint8_is_float_times_255_and_statistics_differ(tiny_weights):
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    ours, theirs = (
        build_backbone(TINY_BACKBONE, weights=tiny_weights, image_stats=s) for s in ("imagenet", "reference")
    )
    torch.testing.assert_close(ours(images)[0], ours(images.float() / 255)[0])
    assert not torch.allclose(ours(images)[0], theirs(images)[0])


def test_bare_prefixed_and_half_precision_files(tmp_path, state):
    half = {key: value.half() for key, value in state.items()}
    prefixed = {f"module.backbone.{key}": value for key, value in state.items()}
    with_head = state | {"head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)}
    for content in (state, prefixed, with_head, {"model": state}, {"state_dict": prefixed}):
        assert_holds(build_backbone(TINY_BACKBONE, weights=save(tmp_path, content)), state)
    assert_holds(build_backbone(TINY_BACKBONE, weights=save(tmp_path, half)), state, atol=1e-3)
    save_file(half, tmp_path / "weights.safetensors")
    assert_holds(build_backbone(TINY_BACKBONE, weights=tmp_path / "weights.safetensors"), state, atol=1e-3)


def test_full_dino_checkpoint(tmp_path, state):
    student = {key: value + 1 for key, value in state.items()}
    path = save(tmp_path, full_checkpoint(student, state))
    assert_holds(build_backbone(TINY_BACKBONE, weights=path), state)
    assert_holds(build_backbone(TINY_BACKBONE, weights=path, checkpoint_key="student"), student)
    with pytest.raises(UserError, match=r"--checkpoint_key ema.*student, teacher"):
        build_backbone(TINY_BACKBONE, weights=path, checkpoint_key="ema")


def test_official_dinov2_with_registers(tmp_path):
    """Official names: register_tokens, mask_token, and a position embedding that covers the CLS token."""
    name = "vit_small_patch14_reg4_dinov2"
    torch.manual_seed(2)
    timm_state = timm.create_model(name, num_classes=0).state_dict()
    official = {key: value for key, value in timm_state.items() if key not in ("reg_token", "cls_token", "pos_embed")}
    cls_position = torch.rand(1, 1, 384)
    official["register_tokens"] = timm_state["reg_token"]
    official["cls_token"] = timm_state["cls_token"] - cls_position
    official["pos_embed"] = torch.cat([cls_position, timm_state["pos_embed"]], dim=1)
    official["mask_token"] = torch.zeros(1, 384)
    assert_holds(build_backbone(name, weights=save(tmp_path, official)), timm_state, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.3.attn.qkv.bias"), r"1 missing: blocks\.3\.attn\.qkv\.bias"),
        (lambda s: s.update(stranger=torch.zeros(1)), "1 unexplained: stranger"),
        (lambda s: s.update({"norm.weight": torch.zeros(65)}), r"norm\.weight \(65,\) for \(64,\)"),
        (
            lambda s: s.update({"norm.weight": torch.full((64,), torch.nan)}),
            r"weights\.pth: norm\.weight .*fetch the file again",
        ),
        (lambda s: s.update({"patch_embed.proj.weight": torch.zeros(64, 3, 8, 8)}), "patch size 8.*patch size 16"),
        (lambda s: s.update({"blocks.6.norm1.weight": torch.zeros(64)}), "7 layers.*6 layers.*give the --backbone"),
        (lambda s: s.update({"reg_token": torch.zeros(1, 2, 64)}), "2 register tokens.*give the --backbone"),
        (lambda s: s.update({"pos_embed": torch.zeros(1, 7, 64)}), r"pos_embed.*give the --backbone"),
        (lambda s: s.update({"pos_embed": torch.zeros(64)}), r"pos_embed.*\(64,\).*give the --backbone"),
        (lambda s: s.update(note="text"), r"weights\.pth: 'note' "),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, state, change, message):
    content = dict(state)
    change(content)
    with pytest.raises(UserError, match=message) as caught:
        build_backbone(TINY_BACKBONE, weights=save(tmp_path, content))
    assert "invalid for input" not in str(caught.value)  # no words of torch


@pytest.mark.parametrize(
    ("made_for", "given"),
    [
        ("vit_small_patch14_reg4_dinov2", "vit_small_patch14_dinov2"),
        ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
        ("vit_small_patch8_224", "vit_small_patch16_224"),
        ("vit_small_patch16_224", "vit_tiny_patch16_224"),
    ],
)
def test_the_backbone_that_a_file_was_made_for_is_named(tmp_path, made_for, given):
    content = timm.create_model(made_for, num_classes=0).state_dict()
    with pytest.raises(UserError, match=f"--backbone {given} is .*; give --backbone {made_for}$"):
        build_backbone(given, weights=save(tmp_path, content))
    if "reg4" in made_for:  # the official names
        content["register_tokens"] = content.pop("reg_token")
        content["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), content["pos_embed"]], dim=1)
        content["mask_token"] = torch.zeros(1, 384)
        with pytest.raises(UserError, match=f"weights.pth: .*give --backbone {made_for}$"):
            build_backbone(given, weights=save(tmp_path, content))


def test_a_block_in_place_of_a_backbone_is_named(tmp_path, tiny_weights):
    block = {"0.norm1.weight": torch.zeros(64), "0.attn.qkv.weight": torch.zeros(192, 64)}
    reference = {"model_state_dict": {f"module.temporal_transformer.{key}": value for key, value in block.items()}}
    for content in ({"format": 1, "blocks": {}, "step": 3}, {"blocks": block}, block, reference):
        for name in (TINY_BACKBONE, "embedded"):
            with pytest.raises(UserError, match=r"weights\.pth: .*give it as --resume_path"):
                build_backbone(name, weights=save(tmp_path, content))


def hugging_face(state: dict, *, style: str, prefix: str = "") -> dict:
    """A state dict of timm under the names that Hugging Face's library gives it."""
    old = style == "vit"
    names = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
    names |= {f"norm.{part}": f"{'norm' if style == 'dinov3' else 'layernorm'}.{part}" for part in ("weight", "bias")}
    for part in ("weight", "bias"):
        patches = "embeddings.patch_embeddings" if style == "dinov3" else "embeddings.patch_embeddings.projection"
        names[f"patch_embed.proj.{part}"] = f"{patches}.{part}"
    renamed = {names[key]: value for key, value in state.items() if key in names}
    layer = "layer.{}." if style == "dinov3" else "encoder.layer.{}."
    inside = {
        "norm1": "layernorm_before" if old else "norm1", "norm2": "layernorm_after" if old else "norm2",
        "attn.proj": "attention.o_proj" if style == "dinov3" else "attention.output.dense",
        "mlp.fc1": {"vit": "intermediate.dense", "dinov2": "mlp.fc1", "dinov3": "mlp.up_proj"}[style],
        "mlp.fc2": {"vit": "output.dense", "dinov2": "mlp.fc2", "dinov3": "mlp.down_proj"}[style],
    }  # fmt: skip
    attention = {name: f"attention.{name[0]}_proj" for name in ("query", "key", "value")}
    if style != "dinov3":
        attention = {name: f"attention.attention.{name}" for name in attention}
    for key, value in state.items():
        if not (found := re.match(r"blocks\.(\d+)\.(.+)", key)):
            continue
        start, (part, _, kind) = layer.format(found[1]), found[2].rpartition(".")
        if found[2].startswith("attn.qkv"):
            thirds = zip(attention.values(), value.chunk(3), strict=True)
            renamed |= {f"{start}{name}.{kind}": third for name, third in thirds}
        elif scale := re.match(r"(?:ls|gamma_)(\d)", found[2]):
            renamed[f"{start}layer_scale{scale[1]}.lambda1"] = value
        elif part in inside:
            renamed[f"{start}{inside[part]}.{kind}"] = value
    return {f"{prefix}{key}": value for key, value in renamed.items()}


@pytest.mark.parametrize(
    ("name", "style", "prefix", "beside"),
    [
        ("vit_tiny_patch16_224", "vit", "", {"pooler.dense.weight": torch.zeros(2, 2)}),
        ("vit_tiny_patch16_224", "vit", "vit.", {"classifier.weight": torch.zeros(2, 2)}),
        ("vit_small_patch14_dinov2", "dinov2", "", {"embeddings.mask_token": torch.zeros(1, 384)}),
        ("vit_small_patch14_dinov2", "dinov2", "dinov2.", {"classifier.bias": torch.zeros(2)}),
    ],
)
def test_names_of_hugging_face(tmp_path, name, style, prefix, beside):
    torch.manual_seed(3)
    state = {key: torch.randn_like(value) for key, value in timm.create_model(name, num_classes=0).state_dict().items()}
    content = hugging_face(state, style=style, prefix=prefix) | beside
    assert not content.keys() & state.keys()
    assert_holds(build_backbone(name, weights=save(tmp_path, content)), state)


def test_registers_under_the_names_of_hugging_face(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    state = timm.create_model(name, num_classes=0).state_dict()
    cls_position = torch.rand(1, 1, 384)
    official = state | {"cls_token": state["cls_token"] - cls_position,
                        "pos_embed": torch.cat([cls_position, state["pos_embed"]], dim=1)}  # fmt: skip
    content = hugging_face(official, style="dinov2") | {"embeddings.register_tokens": state["reg_token"]}
    assert_holds(build_backbone(name, weights=save(tmp_path, content)), state, atol=1e-6)
    with pytest.raises(UserError, match=f"weights.pth .*give --backbone {name}"):
        build_backbone("vit_small_patch14_dinov2", weights=save(tmp_path, content))


def test_dinov3_under_the_names_of_hugging_face(tmp_path, capsys):
    name = "vit_small_patch16_dinov3"
    torch.manual_seed(3)
    state = timm.create_model(name, num_classes=0).state_dict()
    content = hugging_face(state, style="dinov3") | {"embeddings.register_tokens": state["reg_token"]}
    content |= {f"layer.{i}.attention.{part}_proj.bias": torch.zeros(384) for i in range(12) for part in "qv"}
    backbone = build_backbone(name, weights=save(tmp_path, content | {"embeddings.mask_token": torch.zeros(1, 384)}))
    assert_holds(backbone, state)
    assert capsys.readouterr().out == ""


def test_an_incomplete_file_of_hugging_face_names_what_is_missing(tmp_path):
    content = {"embeddings.cls_token": torch.zeros(1, 1, 384),
               "encoder.layer.0.attention.attention.query.weight": torch.zeros(384, 384)}  # fmt: skip
    with pytest.raises(UserError, match=r"Hugging Face.*missing: pos_embed.*give the --backbone"):
        build_backbone("vit_small_patch14_dinov2", weights=save(tmp_path, content))


@pytest.mark.parametrize("shape", [(384, 300), ()])
def test_queries_and_keys_of_different_shapes_are_named(tmp_path, shape):
    content = {"embeddings.cls_token": torch.zeros(1, 1, 384)}
    for part in ("query", "key", "value"):
        found = torch.zeros(shape if part == "query" else (384, 384))
        content[f"encoder.layer.0.attention.attention.{part}.weight"] = found
    with pytest.raises(UserError, match=r"weights\.pth .*blocks\.0\.attn\.qkv\.weight .*fetch the file again"):
        build_backbone("vit_small_patch14_dinov2", weights=save(tmp_path, content))


KINDS = {
    "int8": lambda value: value.to(torch.int8),
    "bool": lambda value: value > 0,
    "complex64": lambda value: value.to(torch.complex64),
    "float8_e4m3fn": lambda value: value.to(torch.float8_e4m3fn),
    "sparse_coo float32": lambda value: value.to_sparse(),
    "meta float32": lambda value: value.to("meta"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_no_plain_floats_are_refused(tmp_path, state, kind):
    key = "blocks.0.norm1.weight"
    content = {"model": state | {key: KINDS[kind](state[key])}}
    with pytest.raises(UserError, match=rf"weights\.pth: {key} .*{kind}; give dense weights"):
        build_backbone(TINY_BACKBONE, weights=save(tmp_path, content))


def test_a_head_may_count_its_batches(tmp_path, state):
    content = state | {"head.1.num_batches_tracked": torch.tensor(7)}
    assert_holds(build_backbone(TINY_BACKBONE, weights=save(tmp_path, content)), state)


def test_unexplained_keys_beside_a_wrapper_are_named(tmp_path, state):
    content = {f"backbone.{key}": value for key, value in state.items()} | {"decoder.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"decoder\.weight"):
        build_backbone(TINY_BACKBONE, weights=save(tmp_path, content))


def test_files_without_weights_or_without_a_vit_are_named(tmp_path, state):
    resnet = {"conv1.weight": torch.zeros(8, 3, 7, 7), "bn1.weight": torch.zeros(8), "fc.bias": torch.zeros(9)}
    moco = {
        f"module.{part}.{key}": value for part in ("base_encoder", "momentum_encoder") for key, value in state.items()
    }
    for content, message in (
        ({}, "[^,]*; give the file of the backbone"),
        ({"state_dict": {}}, "[^,]*; give the file of the backbone"),
        ({"optimizer": {"state": {}}, "epoch": 3}, ".*optimizer, epoch; give the file of the backbone"),
        (resnet, rf".*conv1\.weight, bn1\.weight.*give the weights of --backbone {TINY_BACKBONE}"),
        ({"state_dict": resnet}, r".*conv1\.weight.*give the weights of --backbone"),
        (
            {"state_dict": moco},
            r".*base_encoder\. and momentum_encoder\.; save one alone",
        ),
        ({"model_ema": state, "epoch": 3}, ".*--checkpoint_key model_ema$"),
    ):
        with pytest.raises(UserError, match=rf"weights\.pth: {message}"):
            build_backbone(TINY_BACKBONE, weights=save(tmp_path, content))


def test_lightning_and_mae_checkpoints(tmp_path, state):
    lightning = {"epoch": 1, "global_step": 9, "state_dict": {f"model.{key}": value for key, value in state.items()},
                 "optimizer_states": [], "hyper_parameters": {"lr": 1e-3}}  # fmt: skip
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 9, 8),
               "decoder_blocks.0.norm1.weight": torch.zeros(8)}  # fmt: skip
    for content in (lightning, {"model": state | decoder}):
        assert_holds(build_backbone(TINY_BACKBONE, weights=save(tmp_path, content)), state)


def test_names_that_are_no_vit(tiny_weights):
    with pytest.raises(UserError, match="--backbone vit_small_patch8_225: .*close: vit_small_patch8_224"):
        build_backbone("vit_small_patch8_225")
    for name in ("resnet18", "vit_tiny_r_s16_p8_224"):
        with pytest.raises(UserError, match=f"--backbone {name}: .*choose another"):
            build_backbone(name, weights=tiny_weights)


def test_failed_download_names_the_file_and_the_flag(monkeypatch):
    def no_network(name, pretrained, **_):
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(UserError, match=r"vit_small_patch8_224\.dino/resolve/main/model\.safetensors .*--dino_path"):
        build_backbone("vit_small_patch8_224.dino")


def test_shared_dinov2(shared):
    backbone = build_backbone("vit_small_patch14_dinov2.lvd142m", weights=shared / "weights/dinov2_vits14_fp16.pth")
    assert backbone(torch.rand(1, 3, 42, 56))[0].shape == (1, 12, 384)
