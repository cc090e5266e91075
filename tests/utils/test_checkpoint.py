import argparse
import os
import pickle
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from utils.errors import UserError
from utils.run.checkpoints import (
    hash_file,
    hash_tensors,
    load_checkpoint,
    load_metadata,
    load_tensors,
    save_checkpoint,
)


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
    with pytest.raises(UserError, match=r"last\.pt: .*free space"):
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


def clean(error: UserError) -> str:
    """The text of an error; it must be one line, without words of the libraries or codes for a terminal."""
    text = str(error)
    for stranger in ("\n", "\x1b", "weights_only", "Weights only", "PyTorch 2", "deserializ", "central directory"):
        assert stranger not in text
    return text


@pytest.mark.parametrize("write", [torch.save, save_file, partial(torch.save, _use_new_zipfile_serialization=False)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(tmp_path, write, share):
    whole, cut = tmp_path / "whole", tmp_path / "cut.pth"
    write({"weight": torch.randn(1000)}, whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut\.pth.*fetch it again") as caught:
        load_tensors(cut)
    clean(caught.value)


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors", "a"])
@pytest.mark.parametrize("write", [torch.save, save_file, partial(torch.save, _use_new_zipfile_serialization=False)])
def test_the_content_says_how_a_file_is_read(tmp_path, name, write):
    write({"weight": torch.arange(3.0)}, tmp_path / name)
    torch.testing.assert_close(load_tensors(tmp_path / name)["weight"], torch.arange(3.0))
    assert load_checkpoint(tmp_path / name).keys() == {"weight"}
    assert load_metadata(tmp_path / name, "checkpoint") is None


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True), np.float64(-1e300)])
def test_numbers_of_numpy_are_read(tmp_path, number):
    torch.save({"teacher": {"a": torch.ones(2)}, "loss": number}, tmp_path / "run.pth")
    content = load_tensors(tmp_path / "run.pth")
    assert content["loss"] == number.item()
    assert type(content["loss"]) is type(number.item())


def test_scalars_written_by_numpy_1_are_read(tmp_path):
    torch.save({"loss": np.float64(1.5)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "old.pth").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.pth").write_bytes(content)
    assert load_tensors(tmp_path / "old.pth")["loss"] == 1.5


def npz(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, weight=np.zeros(3))


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dino/dino.pth", b"weights")


FOREIGN = {
    "an HTML page": (b"\n<!DOCTYPE html><html><head>", "web page.*download link"),
    "a page of errors": (b'<?xml version="1.0"?><Error>', "web page.*download link"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git-LFS.*git lfs pull"),
    "an index": (b'{"weight_map": {}}', "JSON.*file of weights"),
    "text": (b"404: Not Found", "text.*file of weights"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(8), r"HDF5.*\.safetensors"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x031.1", r"ONNX.*\.safetensors"),
    "TensorFlow": (b"\x08\x01\x12\x9f\x04", r"TensorFlow.*\.safetensors"),
    "Flax": (b"\x82\xa6params\x82\xa3abc", r"Flax.*\.safetensors"),
    "one array": (b"\x93NUMPY\x01\0", r"NumPy array.*\.safetensors"),
    "gzip": (b"\x1f\x8b\x08\0", "gzip.*unpack"),
    "tar": (b"dino.pth" + bytes(249) + b"ustar", "tar.*unpack"),
    "zeros": (bytes(1000), "zeros.*fetch it again"),
    "one byte of ONNX": (b"\x08", "fetch it again"),
    "one byte of Flax": (b"\x82", "give the file of weights"),
    "an empty zip": (b"PK\x05\x06" + bytes(18), "empty zip archive; give the file of weights"),
    "noise": (b"\xfe\x01\x02\x03", "fetch it again"),
    "zip": (zipped, "zip.*unpack.*dino/dino.pth"),
    "NumPy": (npz, r"\.npz.*\.safetensors"),
    "TorchScript": (torchscript, r"TorchScript.*torch\.jit\.load"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_files_of_another_kind_are_named_with_the_mend(tmp_path, what):
    content, message = FOREIGN[what]
    path = tmp_path / "dino.pth"
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"dino\.pth: is .*{message}") as caught:
        load_tensors(path)
    clean(caught.value)


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(UserError, match="give the file"):
        load_tensors(tmp_path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_that_torch_did_not_write_is_one_line(tmp_path, protocol, recwarn):
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"weight": np.zeros(3)}, protocol))
    with pytest.raises(UserError, match=r"old\.pth: .*torch\.save") as caught:
        load_tensors(tmp_path / "old.pth")
    clean(caught.value)
    assert not [warning for warning in recwarn if warning.category is not ResourceWarning]  # those are of other tests


def test_a_refused_object_is_named(tmp_path):
    torch.save({"model": Payload(tmp_path / "created"), "size": Path("a")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"\([\w.]+\).*state_dict") as caught:
        load_tensors(tmp_path / "evil.pth")
    clean(caught.value)


def test_missing_file_and_wrong_content(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: .*check the path"):
        load_tensors(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="list"):
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
    assert hash_tensors(state) == hash_tensors({"b": torch.zeros(3), "a": torch.ones(2)})
    assert hash_tensors(state) != hash_tensors({"a": torch.ones(2), "b": torch.full((3,), 1e-3)})
    assert hash_tensors(state) != hash_tensors({"a": torch.ones(2), "b": torch.zeros(3, 1)})
    (tmp_path / "file").write_bytes(b"")
    assert hash_file(tmp_path / "file").startswith("e3b0c442")


def test_weights_with_damaged_values_are_refused(tmp_path):
    """A few bytes of a tensor changed: the file is still a whole zip, whose checksums tell."""
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(4096)}, path)
    assert load_tensors(path)["weight"].sum() == 4096
    content = bytearray(path.read_bytes())
    place = content.index(np.ones(64, np.float32).tobytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth: .*fetch it again"):
        load_tensors(path)
