"""The launchers as a user starts them: a shell, no arguments but the user's."""

import json
import shlex
import sys

import pytest
import timm

import eval as eval_program
import train as train_program
from tests.conftest import make_davis
from tests.processes import ROOT, launch
from utils.errors import UserError


def test_a_fault_is_one_line_and_exit_code_2(tmp_path):
    failed = launch("start_eval.sh", "--tau", "minus one", cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("error: argument --tau: invalid")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """The words of the command that a program names where weights can neither be had nor are given."""
    monkeypatch.chdir(tmp_path)

    def no_network(name, pretrained, **_):
        raise ConnectionError("no route")

    def run(program, *arguments) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(timm, "create_model", no_network)
            patch.setattr(sys, "argv", ["program", *map(str, arguments)])
            with pytest.raises(UserError, match="downloaded.*--dino_path FILE; or use .*: bash ") as caught:
                program.main()
        assert not list(tmp_path.glob("out*"))
        return shlex.split(str(caught.value).rpartition(": ")[2])

    return run


def test_the_command_offered_without_weights_works_as_it_stands(offered, tmp_path, monkeypatch):
    frames = make_davis(tmp_path / "a clip", sequences=("ant",), num_frames=2) / "JPEGImages/480p"
    words = offered(eval_program, "--dataset", "video", "--basepath", frames.relative_to(tmp_path), "--training_free",
                    "--save_path", "out")  # fmt: skip
    launcher = tmp_path / words[1]
    assert (words[0], launcher.resolve()) == ("bash", ROOT / "start_eval.sh")
    monkeypatch.setattr(sys, "argv", ["eval.py", *words[2:]])  # as this launcher starts it
    eval_program.main()
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["block"] == {"training_free": True, "temperature": 4.75}
    assert settings["backbone"]["name"] == "embedded"
    assert (tmp_path / "out/ant/00001.png").is_file()


def test_the_command_offered_for_training_and_for_other_data(offered, davis, tmp_path):
    words = offered(train_program, "--basepath", davis, "--output_path", "out")
    args = train_program.make_parser().parse(words[2:])
    assert (args.dataset, args.basepath, args.output_path) == ("video", str(davis), "out")
    words = offered(eval_program, "--davis_path", davis, "--sequences", "ant", "bee", "--training_free")
    args = eval_program.make_parser().parse(words[2:])
    assert (args.backbone, args.dataset, args.davis_path) == ("embedded", "davis17u", str(davis))
    assert (args.protocol, args.sequences) == (["davis"], ["ant", "bee"])
