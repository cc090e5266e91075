"""The flags of both programs, so that a new one, or the end of one, is a decision and not an accident.

A flag stays where users of the reference edit it, where something cannot be done without it, or where a table of
results shows what it is good for. What was tried and did not help is in docs/results.md.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import eval as eval_program
import train as train_program
from data.registry import DATASETS
from model.engine.windows import ENGINES
from model.objects.upsampling import UPSAMPLING
from tests.conftest import snapshot
from utils.errors import UserError
from utils.flags import choices, evaluation, training
from utils.flags.inputs import check_inputs
from utils.scoring.protocols import PROTOCOLS

ROOT = Path(__file__).resolve().parents[2]

NETWORK = """
    --amp --backbone --checkpoint_key --config --device --dino_path --help --image_stats --num_heads --num_t --seed
    --temperature -h
"""
TRAIN = """
    --accumulate --attn_drop --basepath --batch_size --clip_grad --dataset --detect_anomaly --drop --eval_freq --gap
    --init --init_path --last_freq --log_freq --lr --min_lr --motion_weight --no-with_cls --num_frames --num_queries
    --num_train_steps --num_workers --output_path --overfit --overwrite --profile --resolution --resume_path --rounds
    --save_freq --semantic_weight --targets --tau --train_list --watch_clips --weight_decay --with_cls
"""
EVAL = """
    --allow_damaged --annotations --basepath --clustering --clusters --dataset --davis_path --explore
    --feature_cache --first_frame_objects --flow_path --frame_batch --max_key_frames --max_objects --memory_gb --motion
    --no-overlay --no-training_free
    --overlay --overwrite --predictions --proposals --protocol --ratio --resolution --resume_path --save_path
    --sequences --split --tau --toolkit_exact --training_free --upsampling --videos --workers
"""


def test_the_flags_of_train_are_these():
    assert sorted(train_program.make_parser()._option_string_actions) == sorted((NETWORK + TRAIN).split())


def test_the_flags_of_eval_are_these():
    assert sorted(eval_program.make_parser()._option_string_actions) == sorted((NETWORK + EVAL).split())


def test_masks_do_not_depend_on_the_seed_as_its_help_says(davis, tmp_path, run_eval):
    helps = [next(action.help for action in program.make_parser()._actions if action.dest == "seed")
             for program in (train_program, eval_program)]  # fmt: skip
    assert ["Masks do not depend on it" in text for text in helps] == [False, True]
    for seed in (0, 1):
        run_eval("--davis_path", davis, "--training_free", "--clustering", "fast", "--sequences", "ant", "--seed", seed,
                 "--save_path", tmp_path / str(seed))  # fmt: skip
    assert snapshot(tmp_path / "0") == snapshot(tmp_path / "1") != {}


def test_only_eval_takes_words_without_a_flag_and_these_are_clips():
    names = [[action.dest for action in program.make_parser()._get_positional_actions()]
             for program in (train_program, eval_program)]  # fmt: skip
    assert names == [[], ["clips"]]


def test_every_word_that_a_flag_takes_stands_for_something():
    assert tuple(DATASETS) == choices.DATASET_NAMES
    assert tuple(PROTOCOLS) == choices.PROTOCOLS
    assert tuple(UPSAMPLING) == choices.UPSAMPLINGS
    assert (*ENGINES, choices.PLAIN) == choices.CLUSTERINGS


TOOLS = ("data.check", "data.export", "data.sprites", "utils.compare", "utils.export", "utils.report", "utils.scoring",
         "utils.summary", "utils.visual")  # fmt: skip
LIBRARIES = {"torch", "torchvision", "timm", "numpy", "scipy", "cv2", "PIL", "tqdm", "av", "matplotlib", "pycocotools"}


def list_loaded(*command: str) -> tuple[int, str, set[str]]:
    """Run Python; return the exit code, what it said, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = re.findall(r"^import time:.*\| *(\S+)$", done.stderr, re.MULTILINE)
    said = re.sub("^import time:.*\n", "", done.stderr, flags=re.MULTILINE)
    return done.returncode, said, {name.split(".")[0] for name in found}


def test_every_program_is_tried_here():
    parts = [path.relative_to(ROOT).with_suffix("").parts for folder in ("data", "utils", "model")
             for path in (ROOT / folder).rglob("*.py") if "guard_imports()" in path.read_text()]  # fmt: skip
    assert {".".join(each).removesuffix(".__main__") for each in parts} - {"utils.run.signals"} == set(TOOLS)


@pytest.mark.parametrize("program", ["train.py", "eval.py"])
@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--no_such_flag"], 2), (["--seed", "x"], 2)])
def test_help_and_refused_flags_need_no_library_but_yaml(program, words, code):
    done, _, loaded = list_loaded(program, *words)
    assert done == code
    assert {"utils", "yaml"} <= loaded
    assert not loaded & {*LIBRARIES, "model", "data"}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--no_such_flag"], 2)])
def test_help_and_refused_flags_of_tools_need_no_library(tool, words, code):
    done, _, loaded = list_loaded("-m", tool, *words)
    assert done == code
    assert "utils" in loaded
    assert not loaded & LIBRARIES


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["none.mp4"], "none.mp4: no such file"),
        (["README.md", "--davis_path", "x"], "README.md: .*--davis_path"),
        (["READMY.md"], "READMY.md: no such file.* README.md"),
        (["--sequences", "camel.mp4"], "--sequences camel.mp4: .*before the flags"),
        (["--sequences", "a", "clips/b"], "--sequences a clips/b: clips/b .*before the flags"),
        (["--sequences", "README.md"], "--sequences README.md: .*before the flags"),
    ],
)
def test_clips_are_refused_without_a_library(words, named):
    code, said, loaded = list_loaded("eval.py", *words)
    assert code == 2
    assert re.match(f"error: {named}", said)
    assert not loaded & LIBRARIES


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["eval.py", "--davis_path", "READMY.md"], "--davis_path READMY.md: no such file or folder; .* README.md"),
        (["eval.py", "--dataset", "video", "--basepath", "none"], "--basepath none: no such file or folder"),
        (["eval.py", "--predictions", "none/davis"], "--predictions none/davis: no such file or folder"),
        (["train.py", "--dino_path", "none.pth"], "--dino_path none.pth: no such file or folder"),
        (["train.py", "--resume_path", "none.pt"], "--resume_path none.pt: no such file or folder"),
        (["eval.py", "--davis_path", "auto"], "--davis_path auto: no such file or folder"),
        (["eval.py", "--predictions", ""], "--predictions: is empty"),
        (["eval.py", "--flow_path="], "--flow_path: is empty"),
        (["eval.py", ""], "a value: is empty"),
        (
            ["train.py", "--basepath", "docs", "--train_list", "none.txt"],
            "--train_list none.txt: no such file below docs",
        ),
        (["train.py", "--init_path", "README.md/none.pt"], "--init_path README.md/none.pt: no such file or folder"),
    ],
)
def test_missing_inputs_are_refused_without_a_library(words, named):
    code, said, loaded = list_loaded(*words)
    assert code == 2
    assert re.match(f"error: {named}", said)
    assert not loaded & LIBRARIES


def test_words_and_what_is_generated_are_no_missing_inputs():
    for words in (["--resume_path", "auto", "--init_path", "embedded"], ["--dataset", "sprites", "--basepath", "none"]):
        check_inputs(training.make_parser().parse(words))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--resolutoin", "1", "2"], "--resolutoin: .*--resolution"),
        (["clip.mp4", "--max_object=3"], "--max_object: .*--max_objects"),
        (["-save_path", "x"], "-save_path: .*--save_path"),
        (["--tool"], "--tool: .*--toolkit_exact"),
        (["--xyzzy"], "--xyzzy: no such flag .*--help"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_most_similar_one(words, named):
    with pytest.raises(UserError, match=named):
        evaluation.make_parser().parse(words)


@pytest.mark.parametrize(
    ("make_parser", "flags", "named"),
    [
        (training.make_parser, ["--rounds", "2"], "--rounds: .*--targets objects"),
        (evaluation.make_parser, ["--flow_path", "x", "--motion", "none"], "--flow_path: .*--motion flow"),
    ],
    ids=["rounds", "flow_path"],
)
def test_a_flag_without_the_one_that_it_needs_is_refused(make_parser, flags, named):
    with pytest.raises(UserError, match=named):
        make_parser().parse(flags)
