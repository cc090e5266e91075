"""What works on an empty machine: the launchers without flags, the backbone and block in assets/, and Sprites."""

import json
import sys
from pathlib import Path

import pytest
import torch

import eval as eval_program
import train as train_program
from data.sprites import write_sprites
from model.backbone import build_backbone
from model.embedded import BACKBONE_FILE, BLOCK_FILE
from tests.test_launchers import launch
from utils.checkpoint import load_checkpoint, load_tensors
from utils.errors import UserError
from utils.export import export_block
from utils.png import read_label_png

EMBEDDED_LINE = "no data and no weights given: using the backbone embedded"


@pytest.fixture
def sprites(tmp_path, monkeypatch):
    """A working folder with a tiny Sprites begun in it: the programs complete what is begun with its own settings."""
    root = write_sprites(
        tmp_path / "datasets/sprites", height=64, num_train=1, num_val=1, num_frames=5, workers=1, progress=False
    )
    monkeypatch.chdir(tmp_path)
    return root


def parse(program, *arguments):
    return program.make_parser().parse(list(map(str, arguments)))


def test_the_shipped_files_are_what_the_card_says():
    state = load_tensors(BACKBONE_FILE)
    assert BACKBONE_FILE.stat().st_size < 8e6
    assert BLOCK_FILE.stat().st_size < 2e6
    assert 2e6 < sum(value.numel() for value in state.values()) < 4e6
    assert {value.dtype for value in state.values()} == {torch.float16}
    backbone = build_backbone("embedded")
    block = load_checkpoint(BLOCK_FILE)
    assert backbone.patch_size == (8, 8)
    assert block["backbone"]["sha256"] == backbone.weights_hash()
    assert {value.dtype for value in block["blocks"].values()} == {torch.float16}


def test_keys_of_the_embedded_backbone_tell_an_object_from_its_background():
    """On a checkerboard half, keys agree within a half and differ across: they are no constant."""
    image = torch.full((1, 3, 64, 128), 60, dtype=torch.uint8)
    board = (torch.arange(64)[:, None] // 4 + torch.arange(64) // 4) % 2 * 180 + 40
    image[:, :, :, 64:] = board.to(torch.uint8)
    keys = build_backbone("embedded")(image)[0][0]
    keys = torch.nn.functional.normalize(keys - keys.mean(0), dim=-1).view(8, 16, -1)
    left, right = keys[:, 1:7].flatten(0, 1), keys[:, 9:15].flatten(0, 1)
    within = ((left @ left.T).mean() + (right @ right.T).mean()) / 2
    assert within > (left @ right.T).mean() + 0.5


@pytest.mark.parametrize("program", [train_program, eval_program])
def test_defaults_are_embedded_and_said_so(program, capsys):
    args = parse(program)
    assert (args.backbone, args.dataset, args.dino_path) == ("embedded", "sprites", None)
    assert capsys.readouterr().err.count(EMBEDDED_LINE) == 1
    assert parse(program, "--seed", 3).backbone == "embedded"


@pytest.mark.parametrize("program", [train_program, eval_program])
@pytest.mark.parametrize(
    "flag", ["--basepath", "--dino_path", "--backbone=vit_tiny_patch16_224", "--dataset=video", "--checkpoint_key"]
)
def test_nothing_embedded_is_used_with_data_or_weights_of_ones_own(program, flag, capsys):
    args = parse(program, *([flag] if "=" in flag else [flag, "x"]))
    assert args.backbone != "embedded"
    assert args.dataset != "sprites"
    assert capsys.readouterr().err == ""


def test_a_block_of_ones_own_replaces_the_default():
    assert parse(eval_program, "--training_free").resume_path is None
    own = parse(eval_program, "--resume_path", "mine.pt")
    assert (own.resume_path, own.training_free) == ("mine.pt", False)


def test_launchers_without_flags(sprites, tmp_path):
    trained = launch("start_rgb.sh", "--num_train_steps", 1, "--watch_clips", 1, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert EMBEDDED_LINE in trained.stderr
    scored = launch("start_eval.sh", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert EMBEDDED_LINE in scored.stderr
    assert "protocol davis" in scored.stdout
    assert (tmp_path / "outputs/eval/contact_sheet.png").is_file()
    masks = sorted((tmp_path / "outputs/eval/davis/val-00").glob("*.png"))
    assert len(masks) == 5
    assert read_label_png(masks[0]).shape == (64, 114)
    own = launch("start_eval.sh", "--resume_path", "outputs/train/last.pt", "--save_path", "own", cwd=tmp_path)
    assert own.returncode == 0, own.stderr


def test_a_half_written_sprites_is_completed(sprites, tmp_path, monkeypatch, capsys):
    (sprites / "JPEGImages/480p/val-00/00003.jpg").unlink()
    (sprites / "ImageSets/2017/val.txt").unlink()
    monkeypatch.setattr(sys, "argv", ["eval.py", "--training_free", "--workers", "1", "--device", "cpu"])
    eval_program.main()
    assert len(list((sprites / "JPEGImages/480p/val-00").iterdir())) == 5
    assert "J&F-Mean" in capsys.readouterr().out


def test_a_block_is_exported_and_used_as_it_was(davis, tmp_path, run_train, run_eval):
    run_train("--basepath", davis, "--output_path", tmp_path / "run")
    block = tmp_path / "block.safetensors"
    export_block(tmp_path / "run/last.pt", block)
    whole, exported = load_tensors(tmp_path / "run/last.pt"), load_checkpoint(block)
    for name, value in whole["blocks"].items():
        assert torch.allclose(exported["blocks"][name].float(), value, rtol=1e-3, atol=1e-6)
    config = json.loads(json.dumps(whole["config"]))
    assert exported["config"].items() >= {key: config[key] for key in ("lr", "seed", "num_heads", "resolution")}.items()
    assert exported["config"]["dino_path"] == Path(config["dino_path"]).name
    assert str(tmp_path) not in json.dumps(exported["config"])
    run_eval("--davis_path", davis, "--resume_path", block, "--save_path", tmp_path / "results")
    run_train("--basepath", davis, "--output_path", tmp_path / "next", "--init_path", block)
    with pytest.raises(UserError, match="holds weights but no run to continue"):
        run_train("--basepath", davis, "--output_path", tmp_path / "third", "--resume_path", block)
    with pytest.raises(UserError, match="not made by train.py"):
        export_block(BACKBONE_FILE, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="its block has width 192"):
        run_eval("--davis_path", davis, "--resume_path", "embedded", "--save_path", tmp_path / "x")


def test_files_that_are_no_student_are_named(tiny_weights, tmp_path):
    with pytest.raises(UserError, match=r"tiny\.pth: no \.safetensors file with 'vision_transformer'"):
        build_backbone("embedded", weights=tiny_weights)
    with pytest.raises(UserError, match="no such file"):
        build_backbone("embedded", weights=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="with 'vision_transformer' in its header"):
        build_backbone("embedded", weights=BLOCK_FILE)


def test_the_card_names_the_shipped_files():
    card = (Path(BACKBONE_FILE).parent / "README.md").read_text()
    for path in (BACKBONE_FILE, BLOCK_FILE):
        assert path.name in card
