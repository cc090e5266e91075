from pathlib import Path

import pytest
import timm
import torch

import eval as eval_program
import train as train_program
from data.resolution import check_resolution
from model.training.step import TrainSettings
from utils.config import choose_temperature, settings_from
from utils.errors import UserError

# All but the embedded default, which test_embedded runs as it is.
CONFIGS = sorted(p for p in (Path(__file__).parents[2] / "configs").glob("*.yaml") if p.stem != "embedded")


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_command_line_over_recipe_over_default(tmp_path):
    path = write(tmp_path, "seed: 5\ntrain:\n  lr: 1e-3\n  resolution: [32, 64]\n  with_cls: false\neval:\n  tau: 2\n")
    args = train_program.make_parser().parse(["--lr", "0.5", "--config", path])
    assert (args.seed, args.lr, args.resolution, args.with_cls, args.gap) == (5, 0.5, [32, 64], False, 4)
    assert eval_program.make_parser().parse(["--config", path]).tau == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  learning_rate: 1", "'learning_rate'"),
        ("resolutoin: [1, 2]", "did you mean 'resolution'"),
        ("ratio: 5", "'ratio' for train.py"),
        ("train:\n  lr: fast", r"recipe\.yaml: argument --lr: .*give a number"),
        ("train:\n  lr: -1", r"recipe\.yaml: argument --lr: -1 "),
        ("train:\n  resolution: 5", r"recipe\.yaml: argument --resolution: expected 2"),
        ("train:\n  overwrite: 3", "'overwrite' .*true or false"),
        ("train:\n  init: [a, {b: c}]", "'init' "),
        ("- a", "must map option names"),
        ("train: 3", "must map option names"),
        ("a: [", "not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_recipe_faults(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        train_program.make_parser().parse(["--config", write(tmp_path, text)])


def test_command_line_faults(tmp_path):
    parser = train_program.make_parser()
    for arguments, message in (
        (["--config", str(tmp_path / "none.yaml")], r"none\.yaml: no such file"),
        (["--bogus", "1"], "--bogus"),
        (["--batch", "1"], "--batch: .*--batch_size"),
        (["--batchsize=2"], "--batchsize: .*--batch_size"),
        (["--num_frames", "0"], "--num_frames: 0 "),
        (["--amp", "int8"], "--amp: .*int8"),
        (["--lr", "fast"], "--lr: .*'fast', give a number"),
        (["--num_frames", "2.5"], "--num_frames: .*'2.5', give a whole number"),
    ):
        with pytest.raises(UserError, match=message):
            parser.parse(arguments)


def test_resolution_names_the_nearest_two():
    check_resolution((320, 480), (8, 8))
    with pytest.raises(UserError, match="nearest are 308 476 and 322 490"):
        check_resolution((320, 480), (14, 14))
    with pytest.raises(UserError, match="nearest are 16 16 and 16 32"):
        check_resolution((16, 20), (16, 16))
    with pytest.raises(UserError, match="nearest are 16 16 and 16 16"):
        check_resolution((4, 16), (16, 16))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_recipe_runs(path, davis, tmp_path, run_train, run_eval):
    """Each recipe, with the tiny backbone in place of its own, on tiny data; its own must exist and fit its grid."""
    for parser in (train_program.make_parser(), eval_program.make_parser()):
        args = parser.parse(["--config", str(path)])
        assert args.backbone in ("embedded", *timm.list_pretrained())
        with torch.device("meta"):  # without its weights
            patch = (8, 8) if args.backbone == "embedded" else timm.create_model(args.backbone).patch_embed.patch_size
        assert all(side % size == 0 for side, size in zip(args.resolution, patch, strict=True))
    checkpoint = tmp_path / "run/last.pt"
    run_train("--config", path, "--basepath", davis, "--output_path", tmp_path / "run", "--num_train_steps", 1)
    data = ["--davis_path", davis] if "own" not in path.stem else ["--basepath", davis / "JPEGImages/480p"]
    block = ["--resume_path", checkpoint] if "own" not in path.stem else []
    run_eval("--config", path, *data, *block, "--save_path", tmp_path / "results")
    assert (tmp_path / "results/contact_sheet.png").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_of_the_paper_run_its_inference(path):
    """Their first comment says which inference a recipe runs; the recipes of the paper leave nothing of ours on."""
    args = eval_program.make_parser().parse(["--config", str(path)])
    inference = (args.proposals, args.upsampling, args.image_stats, args.tau)
    if path.read_text().startswith("# The paper's inference"):
        assert inference == (["clusters"], "nearest", "reference", 1)
    else:
        assert path.read_text().startswith("# This project's inference")
        assert inference == (["objects"], "guided", "imagenet", "auto")
    assert ("figure" in path.read_text()) or ("Expect J&F" in path.read_text())


def test_settings_are_filled_from_the_flags_of_their_names():
    args = train_program.make_parser().parse(["--lr", "0.5", "--basepath", "x"])
    settings = settings_from(vars(args), TrainSettings)
    assert (settings.lr, settings.num_frames, settings.seed) == (0.5, 3, 0)
    with pytest.raises(AttributeError):
        settings.lr = 1.0  # frozen


@pytest.mark.parametrize("program", [train_program, eval_program])
def test_help_begins_with_five_flags_and_explains_each_in_one_sentence(program):
    parser = program.make_parser()
    groups = [group for group in parser._action_groups if group._group_actions]
    assert len([action for action in groups[0]._group_actions if action.option_strings]) == 5
    assert len(groups) > 4
    for action in parser._actions:
        assert action.help, action.dest
    assert "main flags" in parser.format_help().split("recipe and help")[0]


def test_each_backbone_has_its_temperature():
    assert choose_temperature("vit_small_patch8_224.dino", "sprites") == 3.0
    assert choose_temperature("embedded", "sprites") == 6.0
    assert choose_temperature("embedded", "video") == choose_temperature("embedded", "davis17u") == 4.75
