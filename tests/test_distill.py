"""Distillation: targets keep what the teacher's keys say of each other, and a run ends in a file the backbone loads."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.backbone import build_backbone
from tests.conftest import TINY_BACKBONE, make_davis, moving_disk
from utils import distill, distill_data
from utils.errors import UserError
from utils.muon import Muon


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two folders as users have them: one of photos, one of clips."""
    root = tmp_path_factory.mktemp("images")
    for clip in range(3):
        for index in range(3):
            path = root / "clips" / f"clip{clip}" / f"{index:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), moving_disk(index, size=(60, 90), seed=clip)[0])
    (root / "photos").mkdir()
    for index in range(3):
        cv2.imwrite(str(root / "photos" / f"{index}.jpg"), moving_disk(index, size=(60, 90), seed=9 + index)[0])
    return root


@pytest.fixture
def run(images, tiny_weights, tmp_path, monkeypatch):
    """Run the program with a tiny teacher and student; the last of a flag wins."""
    for module in (distill, distill_data):
        monkeypatch.setattr(module, "SHARD_PAIRS", {"small": 2, "large": 2})
    monkeypatch.setattr(distill_data, "HELD_OUT_PAIRS", 2)
    monkeypatch.setattr(distill, "TOP_K", 3)

    def start(*arguments):
        base = [
            "--teacher", TINY_BACKBONE, "--teacher_path", tiny_weights, "--images", images / "photos", images / "clips",
            "--cache", tmp_path / "cache", "--cache_shards", 2, "--output_path", tmp_path / "run", "--small_grid", 2, 3,
            "--large_grid", 3, 4, "--embed_dim", 32, "--depth", 2, "--num_heads", 1, "--relation_heads", 2,
            "--num_train_steps", 3, "--batch_size", 4, "--queries", 4, "--log_every", 1, "--eval_every", 2,
            "--device", "cpu",
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["distill", *map(str, [*base, *arguments])])
        distill.main()
        return tmp_path / "run"

    return start


def test_a_run_ends_in_a_backbone(run, capsys):
    student = run() / "student.safetensors"
    assert "MB, for VisionTransformer" in capsys.readouterr().out
    backbone = build_backbone("embedded", weights=student)
    keys, _ = backbone(torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8))
    assert keys.shape == (1, 4 * 6, 32)
    assert torch.isfinite(keys).all()


def test_a_run_continues_and_notices_another_student(run):
    folder = run()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"key", "relation", "token"} <= set(log[1])
    assert any("held_sim_corr" in line for line in log)
    run("--resume_path", folder / "last.pt", "--num_train_steps", 5)
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 5
    with pytest.raises(UserError, match="holds another student"):
        run("--resume_path", folder / "last.pt", "--depth", 3)


def test_a_cache_belongs_to_one_teacher_and_grid(run, tmp_path):
    run("--num_train_steps", 0)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3
    with pytest.raises(UserError, match="was made with another small_grid"):
        run("--small_grid", 3, 3)


def test_faults_are_named(run, tmp_path, images):
    with pytest.raises(UserError, match="no such folder"):
        run("--images", tmp_path / "none")
    with pytest.raises(UserError, match="holds no complete shards"):
        run("--cache", tmp_path / "other", "--skip_cache")


def test_key_targets_keep_dot_products_where_the_width_allows():
    generator = torch.Generator().manual_seed(0)
    low_rank = torch.randn(200, 6, generator=generator) @ torch.randn(6, 32, generator=generator)
    keys = distill.unit(low_rank)
    basis = distill.fit_basis(keys, dim=16, heads=1)  # rank 6 fits into 15 directions
    targets = distill.key_targets(keys, basis)
    assert torch.allclose(F.layer_norm(targets, (16,)), targets, atol=1e-4)  # what a LayerNorm can put out
    cosine = F.cosine_similarity(keys[:, None], keys[None], dim=-1)
    kept = F.cosine_similarity(targets[:, None], targets[None], dim=-1)
    assert torch.allclose(cosine, kept, atol=1e-3)


def test_agreement_of_keys_with_themselves_and_with_noise():
    keys = distill.unit(torch.randn(60, 16, generator=torch.Generator().manual_seed(0)))
    same = distill.agreement(keys, keys, heads=2)
    other = distill.agreement(
        distill.unit(torch.randn(60, 16, generator=torch.Generator().manual_seed(1))), keys, heads=2
    )
    assert same["sim_corr"] == pytest.approx(1, abs=1e-5)
    assert same["kl"] == pytest.approx(0, abs=1e-5)
    assert same["top"] == 1
    assert abs(other["sim_corr"]) < 0.3
    assert other["kl"] > 0.1


def test_pairs_alternate_between_sources_and_exhaust_them():
    sources = [[["a"], ["b"], ["c"]], [["d", "e"], ["f", "g"]]]
    picks = [distill_data.pick_pair(sources, number, "seed") for number in range(12)]
    assert {first for first, _ in picks[0:6:2]} == {"a", "b", "c"}
    assert all({*pair} <= {"d", "e"} or {*pair} <= {"f", "g"} for pair in picks[1::2])


def test_annotations_are_no_images_to_learn_from(tmp_path):
    davis = make_davis(tmp_path / "DAVIS")
    (davis / "JPEGImages/480p/.ant").mkdir()
    shutil.copy(davis / "JPEGImages/480p/ant/00000.jpg", davis / "JPEGImages/480p/.ant/00000.jpg")
    groups = distill_data.list_groups(davis)
    assert [path.parent.relative_to(davis).as_posix() for path, *_ in groups] == [
        "JPEGImages/480p/ant", "JPEGImages/480p/bee",
    ]  # fmt: skip


def test_muon_takes_steps_of_one_size():
    """The update is nearly orthogonal: all singular values alike, its size set by the learning rate alone."""
    weight = torch.nn.Parameter(torch.zeros(8, 12))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.randn(8, 12, generator=torch.Generator().manual_seed(0)) * 1e-3
    optimizer.step()
    singular = np.linalg.svd(weight.detach().numpy(), compute_uv=False)
    assert singular.max() / singular.min() < 2
    assert np.sqrt((weight.detach().numpy() ** 2).mean()) == pytest.approx(0.2 * 0.1, rel=0.35)
