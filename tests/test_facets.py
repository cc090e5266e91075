"""What features are made of (model/facets.py), and how a video's are centred (model/centring.py)."""

import json

import pytest
import timm
import torch
from torch.nn import functional as F

from model.backbone import Backbone, build_backbone
from model.centring import RIDGE, centre
from model.network import build_network
from model.segmenter import Segmenter
from tests.conftest import TINY_BACKBONE, snapshot
from utils.errors import UserError


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"])
@pytest.mark.parametrize("with_cls", [False, True])
def test_facets_are_thirds_of_qkv_of_their_layers(name, with_cls):
    """Against the whole forward pass with every attention's input looked at; biases that Eva keeps apart are drawn."""
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    attentions = [block.attn for block in vit.blocks]
    for attention in attentions:
        for part in ("q_bias", "v_bias"):
            if getattr(attention, part, None) is not None:
                torch.nn.init.normal_(getattr(attention, part))
    seen = {}
    for layer, attention in enumerate(attentions):
        attention.register_forward_pre_hook(lambda _, args, layer=layer: seen.update({layer: args[0]}))
    patch = vit.patch_embed.patch_size[0]
    images = torch.rand(2, 3, 2 * patch, 3 * patch)
    words = ["value", "query-2", "key-1"]
    backbone = Backbone(vit, name=name, facets=words)
    features, cls = backbone(images, with_cls=with_cls)
    with torch.no_grad():
        vit.forward_features((images - backbone.mean) / backbone.std)
        expected = []
        for third, before in ((2, 0), (0, 2), (1, 1)):
            layer = len(attentions) - 1 - before
            attention = attentions[layer]
            made = attention.qkv(seen[layer]).chunk(3, dim=-1)[third][:, vit.num_prefix_tokens :]
            apart = getattr(attention, ("q_bias", "k_bias", "v_bias")[third], None)
            made = made if apart is None or attention.qkv.bias is not None else made + apart
            expected.append(made)
    assert backbone.dim == 3 * backbone.cls_dim == features.shape[-1]
    for found, part in zip(features.chunk(3, dim=-1), expected, strict=True):
        torch.testing.assert_close(found, F.layer_norm(part, part.shape[-1:]))
    assert (cls is not None) == with_cls
    alone, _ = Backbone(vit, name=name, facets=["query-2"])(images)
    torch.testing.assert_close(alone, expected[1])  # a single one is taken as it is


def test_nothing_deeper_than_the_facets_is_computed(tiny_weights):
    backbone = build_backbone(TINY_BACKBONE, weights=tiny_weights, facets=["key-2", "query-3"])
    calls = []
    for index, block in enumerate(backbone.vit.blocks):
        block.mlp.register_forward_hook(lambda *_, index=index: calls.append(index))
    backbone(torch.rand(1, 3, 32, 48))
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("words", [["keys"], ["key-0"], ["key", "value-1x"], ["key-5"], ["output"], ["key", "key"]])
def test_unknown_facets_are_refused_with_their_name(words, tiny_weights):
    with pytest.raises(UserError, match=f"--facets .*{words[-1]}: .*give "):
        build_backbone(TINY_BACKBONE, weights=tiny_weights, facets=words)


def test_centred_and_whitened_by_their_definitions():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator) * torch.tensor([3.0, 1, 1, 0.3, 0.1, 0.01])
    features = torch.randn(4, 50, 6, generator=generator) @ mixing + 5
    flat = features.flatten(0, 1).double()
    centred, whitened, same = (features.clone() for _ in range(3))
    centre(centred, "mean")
    centre(whitened, "whitened")
    centre(same, "none")
    torch.testing.assert_close(centred.flatten(0, 1).double(), flat - flat.mean(0), rtol=1e-5, atol=1e-5)
    assert torch.equal(same, features)
    covariance = torch.cov(flat.T, correction=0)
    ridged = covariance + RIDGE * covariance.trace() / 6 * torch.eye(6)
    # C^-1/2 is symmetric, and its square is C^-1.
    made = torch.linalg.lstsq(flat - flat.mean(0), whitened.flatten(0, 1).double()).solution
    torch.testing.assert_close(made, made.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made @ made, torch.linalg.inv(ridged), rtol=1e-3, atol=1e-4)


def test_an_unknown_way_to_centre_is_refused():
    with pytest.raises(ValueError, match="whiten"):
        centre(torch.zeros(1, 2, 3), "whiten")


def test_where_nothing_varies_whitened_features_are_zero():
    features = torch.full((2, 3, 4), 7.0)
    centre(features, "whitened")
    assert torch.equal(features, torch.zeros(2, 3, 4))


def test_eval_keeps_results_of_other_features_apart(davis, tmp_path, run_eval):
    """One feature cache for all; the second run of the first settings reads its own."""
    made = {}
    choices = ([], ["--facets", "value-1", "key"], ["--centring", "mean"], ["--centring", "whitened"])
    for number, flags in enumerate((*choices, [])):
        out = tmp_path / str(number)
        run_eval("--davis_path", davis, "--training_free", "--tau", 0.05, "--proposals", "clusters", *flags,
                 "--feature_cache", tmp_path / "features", "--save_path", out)  # fmt: skip
        made[number] = snapshot(out)
        settings = json.loads((out / "settings.json").read_text())
        assert settings.get("facets") == (flags[1:] if "--facets" in flags else None)
        assert settings.get("centring") == (flags[1] if "--centring" in flags else None)
    assert made[0] == made[4]
    assert len({json.dumps({k: v.hex() for k, v in pngs.items()}) for pngs in made.values()}) > 2
    cached = len(list((tmp_path / "features").rglob("*.npy")))
    assert cached == 2 * 14  # of both kinds of features; centring is done to what is kept
    with pytest.raises(UserError, match="--overwrite"):
        run_eval("--davis_path", davis, "--training_free", "--tau", 0.05, "--proposals", "clusters",
                 "--centring", "mean", "--save_path", tmp_path / "0")  # fmt: skip


def test_a_block_stays_with_its_facets(davis, tmp_path, run_train, run_eval):
    frames = davis / "JPEGImages/480p"
    with pytest.raises(UserError, match="--facets key value-1: .*--no-with_cls"):
        run_train("--basepath", frames, "--facets", "key", "value-1", "--output_path", tmp_path / "wide")
    run = tmp_path / "run"
    run_train("--basepath", frames, "--facets", "key", "value-1", "--no-with_cls", "--output_path", run)
    block = ["--davis_path", davis, "--resume_path", run / "last.pt"]
    run_eval(*block, "--facets", "key", "value-1", "--save_path", tmp_path / "out")
    for facets in (["key", "query"], ["key"], ["value-1", "key"]):
        with pytest.raises(UserError, match=f"--facets {' '.join(facets)}: .*trained on key value-1; give that"):
            run_eval(*block, "--facets", *facets, "--save_path", tmp_path / "other")
    with pytest.raises(UserError, match="--centring mean: a trained block"):
        run_eval(*block, "--facets", "key", "value-1", "--centring", "mean", "--save_path", tmp_path / "centred")


def test_blocks_of_the_reference_see_keys(tiny_weights):
    """Its files say nothing of features; nor do those of train.py from before there were others."""
    backbone = {f"encoder.{key}": value for key, value in torch.load(tiny_weights).items()}
    network = build_network(backbone=TINY_BACKBONE, dino_path=tiny_weights, with_cls=False)
    blocks = {f"temporal_transformer.{key}": value for key, value in network.blocks.state_dict().items()}
    content = {"model_state_dict": backbone | blocks}
    build_network(backbone=TINY_BACKBONE, checkpoint=content, with_cls=False)
    for held in (content, {"blocks": network.blocks.state_dict(), "config": {}, "backbone": {}}):
        with pytest.raises(UserError, match="--facets value: .*trained on key"):
            build_network(backbone=TINY_BACKBONE, dino_path=tiny_weights, checkpoint=held, facets=["value"],
                          with_cls=False)  # fmt: skip


def test_a_run_and_kept_features_stay_with_their_facets(davis, tmp_path, run_train):
    """Of the same shape, so that only their names part them."""
    some = ["--basepath", davis / "JPEGImages/480p", "--feature_cache", tmp_path / "features", "--cache_views", 1]
    run_train(*some, "--output_path", tmp_path / "run")
    with pytest.raises(UserError, match="--facets .*value.*: the run to resume has .*key"):
        run_train(*some, "--facets", "value", "--output_path", tmp_path / "run", "--resume_path", "auto")
    run_train(*some, "--facets", "value", "--output_path", tmp_path / "other")
    assert len([folder for folder in (tmp_path / "features").iterdir() if folder.is_dir()]) == 2


def test_frames_as_they_come_cannot_be_centred(tiny_weights):
    network = build_network(backbone=TINY_BACKBONE, dino_path=tiny_weights, with_cls=False)
    with pytest.raises(UserError, match="--centring mean"):
        Segmenter(network, centring="mean").open(torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
