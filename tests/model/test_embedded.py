"""What works on an empty machine: the launchers without flags, the backbone and block in assets/, and Sprites."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

import eval as eval_program
import train as train_program
from data.sprites.writer import write_sprites
from model.backbone import build_backbone
from model.weights import BACKBONE_FILE, BLOCK_FILE, identify_embedded
from tests.processes import launch
from utils.config import NOT_EMBEDDED
from utils.errors import UserError
from utils.export import export_block
from utils.png import read_label_png
from utils.run.checkpoints import load_checkpoint, load_tensors

CARD = BACKBONE_FILE.parent / "README.md"
EMBEDDED_LINE = "no data and no backbone given: using generated videos (Sprites) and the backbone embedded"

SMALL = ("--resolution", "64", "112")  # about a sixth of the default's tokens


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
    backbone, block = build_backbone("embedded"), load_checkpoint(BLOCK_FILE)
    states = {BACKBONE_FILE: load_tensors(BACKBONE_FILE), BLOCK_FILE: block["blocks"]}
    card = CARD.read_text()
    (counts,) = re.findall(r"^\| parameters \| (.*) \| (.*) \|$", card, flags=re.MULTILINE)
    (sizes,) = re.findall(r"^\| size \(float16\) \| (.*) \| (.*) \|$", card, flags=re.MULTILINE)
    for (path, state), count, size in zip(states.items(), counts, sizes, strict=True):
        assert {value.dtype for value in state.values()} == {torch.float16}
        assert count == f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M"
        assert size == f"{path.stat().st_size / 1e6:.1f} MB"
    assert backbone.patch_size == (8, 8)
    assert block["backbone"]["sha256"] == backbone.weights_hash()
    assert identify_embedded() == backbone.identify()


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
def test_defaults_are_embedded_with_a_note(program, capsys):
    args = parse(program)
    assert (args.backbone, args.dataset, args.dino_path) == ("embedded", "sprites", None)
    assert capsys.readouterr().err.count(EMBEDDED_LINE) == 1
    assert parse(program, "--seed", 3).backbone == "embedded"


@pytest.mark.parametrize("option", NOT_EMBEDDED)
def test_nothing_embedded_is_used_with_data_or_weights_of_the_user(option, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("seed: 3\n")
    values = {"config": tmp_path / "recipe.yaml", "backbone": "vit_tiny_patch16_224", "dataset": "video"}
    only_one_has = {"davis_path": eval_program, "train_list": train_program}
    for program in [only_one_has[option]] if option in only_one_has else [train_program, eval_program]:
        args = parse(program, f"--{option}", values.get(option, "x"))
        assert args.backbone != "embedded"
        assert args.dataset != "sprites"
    assert capsys.readouterr().err == ""


def test_the_note_on_the_default_is_true(capsys):
    """A block of one's own leaves backbone and videos; where predictions are scored there is no backbone at all."""
    for program, flag in ((eval_program, "--resume_path"), (train_program, "--init_path")):
        assert parse(program, flag, "mine.safetensors").backbone == "embedded"
        said = capsys.readouterr().err
        assert said.startswith(EMBEDDED_LINE)
        assert "--config configs/embedded.yaml" in said
    assert parse(eval_program, "--predictions", "x").dataset == "sprites"
    said = capsys.readouterr().err
    assert said.startswith("no data given: scoring against generated videos (Sprites)")
    assert "--config configs/embedded.yaml" in said
    assert "backbone" not in said


FAULTS = [
    (["--basepath", "typo/clip.mp4"], "--basepath typo/clip.mp4: .* give --dataset video"),
    (["--resolution", 160, 281], "--resolution 160 281: .*160 280 and 160 288"),
    (["--device", "cuda:99"], "--device cuda:99: .*give --device cpu"),
    (["--resume_path", "none.pt"], "none.pt: .*check the path"),
]
FAULTS_OF_EVAL = [
    (["--davis_path", "x"], "--davis_path x: --dataset sprites .*give --dataset davis17u"),
    (["--resume_path", "embedded", "--temperature", 9], "--temperature: .*--resume_path embedded; give one of the two"),
    (["--split", "tran"], "^--split tran: .*choose from val, train"),
    (["--predictions", "none"], "--predictions none: no such folder"),
    (["--save_path", "file/x"], "--save_path file/x: .*choose another folder"),
    (["--save_path", "full"], "--save_path full: .*choose another"),
]
FAULTS_OF_TRAIN = [
    (["--init_path", "embedded", "--temperature", 9], "--temperature: .*--init_path embedded; give one of the two"),
    (["--init_path", "embedded", "--init", "identity"], "--init: .*--init_path embedded; give one of the two"),
    (["--output_path", "file/x"], "--output_path file/x: .*choose another folder"),
    (["--output_path", "full"], "--output_path full: .*--resume_path"),
]


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [(eval_program, *fault) for fault in FAULTS + FAULTS_OF_EVAL]
    + [(train_program, *fault) for fault in FAULTS + FAULTS_OF_TRAIN],
)
def test_faults_are_found_before_anything_is_generated(tmp_path, monkeypatch, program, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/last.pt").touch()
    recipe = Path(eval_program.__file__).parent / "configs/embedded.yaml"
    monkeypatch.setattr(sys, "argv", ["program", "--config", str(recipe), *map(str, arguments)])
    with pytest.raises(UserError, match=message):
        program.main()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["file", "full", "full/last.pt"]


def test_a_block_of_the_user_replaces_the_default():
    assert parse(eval_program, "--training_free").resume_path is None
    own = parse(eval_program, "--resume_path", "mine.pt")
    assert (own.resume_path, own.training_free) == ("mine.pt", False)


def test_launchers_without_flags(sprites, tmp_path, monkeypatch):
    """The first evaluation in this process, the second, which finds its masks, by the launcher."""
    trained = launch("start_rgb.sh", "--num_train_steps", 1, "--watch_clips", 1, *SMALL, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert EMBEDDED_LINE in trained.stderr
    monkeypatch.setattr(sys, "argv", ["eval.py"])
    eval_program.main()
    assert (tmp_path / "outputs/eval/contact_sheet.png").is_file()
    masks = sorted((tmp_path / "outputs/eval/davis/val-00").glob("*.png"))
    assert len(masks) == 5
    assert read_label_png(masks[0]).shape == (64, 114)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    scored = launch("start_eval.sh", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert EMBEDDED_LINE in scored.stderr
    assert "protocol davis" in scored.stdout
    loaded = set(re.findall(r"^import time:.*\| *(\S+)$", scored.stderr, re.MULTILINE))
    # Not timm, whose import takes longest
    assert "torch" in loaded
    assert not loaded & {"timm", "torchvision", "torch._dynamo", "scipy.stats", "scipy.optimize", "data.sprites.render"}
    own = ["eval.py", "--resume_path", "outputs/train/last.pt", "--save_path", "own", *SMALL]
    monkeypatch.setattr(sys, "argv", own)
    eval_program.main()
    assert len(list((tmp_path / "own/davis/val-00").glob("*.png"))) == 5


def test_a_half_written_sprites_is_completed(sprites, tmp_path, monkeypatch, capsys):
    (sprites / "JPEGImages/480p/val-00/00003.jpg").unlink()
    frame = sprites / "JPEGImages/480p/val-00/00002.jpg"
    frame.write_bytes(bytes(frame.stat().st_size))
    (sprites / "ImageSets/2017/val.txt").unlink()
    monkeypatch.setattr(sys, "argv", ["eval.py", "--training_free", "--workers", "1", "--device", "cpu", *SMALL])
    eval_program.main()
    assert len(list((sprites / "JPEGImages/480p/val-00").iterdir())) == 5
    assert "J&F-Mean" in capsys.readouterr().out


def test_a_block_is_exported_and_used_as_it_was(davis, tmp_path, run_train, run_eval):
    (tmp_path / "kept.txt").write_text("ant\nbee\n")
    places = ["--train_list", tmp_path / "kept.txt"]
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--eval_freq", 4, *places)
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
    with pytest.raises(UserError, match="block.safetensors: .*--init_path"):
        run_train("--basepath", davis, "--output_path", tmp_path / "third", "--resume_path", block)
    with pytest.raises(UserError, match="--checkpoint .*give its last.pt"):
        export_block(BACKBONE_FILE, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="width 192.*give the --backbone"):
        run_eval("--davis_path", davis, "--resume_path", "embedded", "--save_path", tmp_path / "x")


def test_files_that_are_no_student_are_named(tiny_weights, tmp_path):
    with pytest.raises(UserError, match=r"tiny\.pth: .*give the --backbone"):
        build_backbone("embedded", weights=tiny_weights)
    with pytest.raises(UserError, match="none.safetensors: .*check the path"):
        build_backbone("embedded", weights=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=f"{BLOCK_FILE.name}: .*give it as --resume_path"):
        build_backbone("embedded", weights=BLOCK_FILE)


def test_the_card_names_the_shipped_files():
    for path in (BACKBONE_FILE, BLOCK_FILE):
        assert path.name in CARD.read_text()
