"""Whatever is wrong with a file: it is read, or refused in one clean line, and nothing in it is ever run."""

import copy
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import eval as eval_program
import train as train_program
from data.sprites.writer import write_sprites
from tests.data.layout_trees import SHARD, TREES, checked, load
from utils.errors import UserError
from utils.png import read_label_png, write_label_png
from utils.run.checkpoints import load_metadata, load_tensors, save_checkpoint, save_tensors

# More of them: FUZZ_EXAMPLES=4000 python -m pytest tests/programs/test_fuzz.py --hypothesis-seed 1
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 25)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["../x", "a\0b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def refused(error: UserError) -> None:
    assert str(error).strip()
    assert "\n" not in str(error).strip()


@st.composite
def damages(draw) -> list[tuple]:
    """What happens to a file: pieces cut away, overwritten or put in, at shares of its length."""
    share = st.floats(0, 1)
    one = st.tuples(st.sampled_from(["cut", "over", "in"]), share, st.binary(min_size=1, max_size=6))
    return draw(st.lists(one, min_size=1, max_size=4))


def damaged(whole: bytes, edits: list[tuple]) -> bytes:
    for kind, share, piece in edits:
        place = int(share * len(whole))
        rest = {"cut": b"", "over": piece + whole[place + len(piece) :], "in": piece + whole[place:]}[kind]
        whole = whole[:place] + rest
    return whole


def changed(content: object, seed: int, junk: object) -> object:
    """A copy of a JSON value with one of its parts, chosen by `seed`, replaced by `junk` or taken away."""
    content = copy.deepcopy(content)
    rng, place = random.Random(seed), content
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return junk
        key = rng.choice(list(keys))
        if not (isinstance(place[key], dict | list) and place[key]) or rng.random() < 0.2:
            break
        place = place[key]
    if rng.random() < 0.2:
        del place[key]
    else:
        place[key] = junk
    return content


def read_all(tree, root: Path) -> None:
    for video in load(tree, root):
        for name in video.annotations.frame_names if video.annotations else ():
            labels = video.annotations.read(name)
            assert labels.ndim == 2


# ------------------------------------------------------------------ weights and checkpoints


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("weights")
    tensors = {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.zeros(2, dtype=torch.int64)}
    save_checkpoint(folder / "run.pt", {"step": 3, "blocks": tensors, "config": {"tau": 1.0, "resolution": [48, 80]}})
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_tensors(folder / "block.safetensors", tensors, key="checkpoint", metadata={"step": 3})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@FUZZ
@given(name=st.sampled_from(["run.pt", "old.pth", "block.safetensors"]), edits=damages())
def test_damaged_checkpoints(weights, tmp_path, name, edits):
    path = tmp_path / name
    path.write_bytes(damaged(weights[name], edits))
    for read in (load_tensors, lambda path: load_metadata(path, "checkpoint")):
        try:
            assert isinstance(read(path), dict | None)
        except UserError as error:
            refused(error)


@FUZZ
@given(st.binary(max_size=200))
def test_anything_for_a_checkpoint(tmp_path, content):
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            load_tensors(tmp_path / name)
        refused(caught.value)


# ------------------------------------------------------------------ recipes


RECIPE_LINES = st.lists(
    st.tuples(
        st.sampled_from(["tau", "lr", "resolution", "train", "eval", "with_cls", "backbone", "x", "config"]),
        JUNK,
    ),
    max_size=4,
)  # fmt: skip


@FUZZ
@given(RECIPE_LINES)
def test_any_recipe(tmp_path, lines):
    path = tmp_path / "recipe.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in lines))
    parse_with(path)


@FUZZ
@given(st.binary(max_size=100))
@example(b"!!python/object/apply:os.system ['touch created']")
@example(b"a: &x [*x, *x]")
@example(b"?")
@example(b"3: 4")
@example(b"train: {null: 1}")
@example(b"2026-01-01: 1")
@example(b"tau: 2026-99-99")
@example(b"tau: !!int x")
@example(b"tau: !!bool x")
@example(b"tau: !!timestamp x")
@example(b"tau: " + 2000 * b"[")
@example(b"tau: !!set {a}")
@example(b'basepath: "a\\0b"')
def test_anything_for_a_recipe(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    parse_with(path)
    assert not (tmp_path / "created").exists()


def parse_with(path: Path) -> None:
    for program in (train_program, eval_program):
        try:
            program.make_parser().parse(["--config", str(path)])
        except UserError as error:
            refused(error)


# ------------------------------------------------------------------ label PNGs


@FUZZ
@given(edits=damages(), deep=st.booleans())
def test_damaged_label_pngs(tmp_path, edits, deep):
    path = tmp_path / "labels.png"
    write_label_png(path, np.arange(35).reshape(5, 7) * (40 if deep else 1))
    path.write_bytes(damaged(path.read_bytes(), edits))
    try:
        assert read_label_png(path).ndim == 2
    except UserError as error:
        refused(error)


# ------------------------------------------------------------------ data sets


@pytest.fixture(scope="module", params=["ytvis19", "ytvos18"])
def described(request, tmp_path_factory):
    """A data set that a JSON describes: tree, root, the file, its content."""
    tree, root = TREES[request.param], tmp_path_factory.mktemp(request.param)
    tree.build(root)
    path = next(root.rglob(f"{tree.split}.json"), root / tree.split / "meta.json")
    return tree, root, path, json.loads(path.read_text())


@FUZZ
@given(seed=st.integers(0, 10**6), junk=JUNK)
def test_changed_json_of_a_data_set(described, seed, junk):
    tree, root, path, content = described
    path.write_text(json.dumps(changed(content, seed, junk)))
    for read in (read_all, checked):
        try:
            read(tree, root)
        except UserError as error:
            refused(error)


@FUZZ
@given(edits=damages())
def test_damaged_json_of_a_data_set(described, edits):
    tree, root, path, content = described
    path.write_bytes(damaged(json.dumps(content).encode(), edits))
    try:
        read_all(tree, root)
    except UserError as error:
        refused(error)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("movi")
    TREES["movi-c"].build(root)
    path = root / SHARD.format(0)
    return root, path, path.read_bytes()


@FUZZ
@given(edits=damages())
def test_damaged_records(records, edits):
    root, path, whole = records
    path.write_bytes(damaged(whole, edits))
    try:
        read_all(TREES["movi-c"], root)
    except UserError as error:
        refused(error)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("sprites")
    write_sprites(root, height=32, num_train=0, num_val=1, num_frames=1, workers=1, progress=False)
    return root, json.loads((root / "sprites.json").read_text())


@FUZZ
@given(seed=st.integers(0, 10**6), junk=JUNK)
def test_changed_manifest_of_sprites(manifest, seed, junk):
    root, content = manifest
    write_with_manifest(root, changed(content, seed, junk))


@pytest.mark.parametrize(
    ("key", "junk"),
    [
        ("videos", None),
        ("videos", {"val-00": None}),
        ("videos", {"../val-00": 0}),
        ("videos", [[None, 3]]),
        ("videos", ["ab"]),
        ("parameters", None),
        ("parameters", {"version": None}),
    ],
)
def test_manifests_of_sprites_with_other_values_are_refused(manifest, key, junk):
    root, content = manifest
    with pytest.raises(UserError, match=r"sprites\.json.*delete the folder|sprites\.json.*restore"):
        write_with_manifest(root, content | {key: junk}, passing=())


def write_with_manifest(root: Path, content: object, *, passing: tuple = (UserError,)) -> None:
    (root / "sprites.json").write_text(json.dumps(content))
    try:
        write_sprites(root, height=32, num_train=0, num_val=1, num_frames=1, workers=1, progress=False)
    except passing as error:
        refused(error)
