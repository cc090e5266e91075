import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch

from utils.checkpoint import file_hash, load_tensors, save_checkpoint, tensors_hash
from utils.errors import UserError


def test_roundtrip_and_no_partial_file_left(tmp_path):
    content = {"step": 3, "blocks": {"weight": torch.arange(3.0)}, "config": {"resolution": (48, 80), "name": None}}
    save_checkpoint(tmp_path / "run/last.pt", content)
    torch.testing.assert_close(load_tensors(tmp_path / "run/last.pt")["blocks"], content["blocks"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.pt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"last\.pt: cannot be written .*No space left"):
        save_checkpoint(path, {"step": 2})
    assert load_tensors(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


class Payload:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("plain", [True, False])
def test_a_hostile_file_is_refused_and_does_nothing(tmp_path, plain):
    path, target = tmp_path / "evil.pth", tmp_path / "created"
    if plain:
        path.write_bytes(pickle.dumps(Payload(target)))
    else:
        torch.save({"model": Payload(target)}, path)
    with pytest.raises(UserError, match=r"evil\.pth: refused"):
        load_tensors(path)
    assert not target.exists()


def test_an_argparse_namespace_is_allowed(tmp_path):
    torch.save({"teacher": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "full.pth")
    assert load_tensors(tmp_path / "full.pth")["args"].lr == 1


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(tmp_path, name, share):
    whole = tmp_path / "whole.pth"
    torch.save({"weight": torch.randn(1000)}, whole)
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=name):
        load_tensors(tmp_path / name)


def test_missing_file_and_wrong_content(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        load_tensors(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        load_tensors(tmp_path / "list.pth")


@pytest.mark.parametrize(
    "content",
    [
        {"blocks": {"0a": torch.ones(1)}},
        {"blocks": {3: torch.ones(1)}},
        {"blocks": {"0.norm1.weight": torch.tensor(1.0)}},
        {"blocks": {"0.norm1.weight": torch.ones(64)}},
        {"blocks": {}, "config": None, "backbone": "x", "step": "a"},
        {"model_state_dict": {1: torch.ones(1)}},
        {"model_state_dict": torch.ones(1)},
    ],
)
@pytest.mark.parametrize("flag", ["--resume_path", "--init_path"])
def test_odd_checkpoints_are_refused_in_one_line(content, flag, davis, tmp_path, run_train):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth"):
        run_train("--basepath", davis, flag, tmp_path / "odd.pth", "--output_path", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_hashes(tmp_path):
    state = {"a": torch.ones(2), "b": torch.zeros(3).half()}
    assert tensors_hash(state) == tensors_hash({"b": torch.zeros(3), "a": torch.ones(2)})
    assert tensors_hash(state) != tensors_hash({"a": torch.ones(2), "b": torch.full((3,), 1e-3)})
    (tmp_path / "file").write_bytes(b"")
    assert file_hash(tmp_path / "file").startswith("e3b0c442")
