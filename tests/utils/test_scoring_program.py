"""Scoring whole folders, in one process or several and from the command line; files; what the user can mend."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.utils.label_folders import folders, moving_squares, write_video
from utils.errors import UserError
from utils.png import write_label_png
from utils.scoring import score as scoring
from utils.scoring import tables as score_files
from utils.scoring.__main__ import note_unscored
from utils.scoring.annotations import find_label_files

ROOT = Path(__file__).resolve().parents[2]
BOTH = ("davis", "paper")


def run_cli(root: Path, results: Path, *extra: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "utils.scoring", "--davis_path", str(root), "--results", str(results)]
    return subprocess.run([*command, *extra], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_png_in_capitals_is_scored_alike(scored_davis, capsys):
    root, results = scored_davis
    before = scoring.score(results, folders(root), keep=True)["davis"].summary()
    for path in [*(results / "cat").iterdir(), *(root / "Annotations_unsupervised/480p/dogs").iterdir()]:
        path.rename(path.with_suffix(".PNG"))
    note_unscored(results, folders(root))
    assert not capsys.readouterr().err
    assert scoring.score(results, folders(root), keep=True)["davis"].summary() == before
    shutil.copy(results / "cat/00001.PNG", results / "cat/00001.png")
    with pytest.raises(UserError, match=r"cat/00001\.(png|PNG): .* keep one"):
        scoring.score(results, folders(root))


# The whole run


@pytest.fixture
def eager(monkeypatch):
    """Processes even for a handful of frames."""
    monkeypatch.setattr(scoring, "FRAMES_PER_PROCESS", 1)


@pytest.mark.usefixtures("eager")
def test_workers_change_nothing(scored_davis):
    root, results = scored_davis
    alone = scoring.score(results, folders(root), protocols=BOTH, workers=1)
    together = scoring.score(results, folders(root), protocols=BOTH, workers=2)
    assert alone == together
    assert [sequence.sequence for sequence in alone["davis"].sequences] == ["dogs", "cat"]


def test_global_row_weighs_every_object_alike(scored_davis):
    root, results = scored_davis
    scores = scoring.score(results, folders(root), workers=1)["davis"]
    objects = np.array([values for sequence in scores.sequences for values in sequence.j])
    summary = scores.summary()
    assert summary["J-Mean"] == pytest.approx(objects[:, 0].mean())
    assert summary["J-Decay"] == pytest.approx(objects[:, 2].mean())
    assert summary["J&F-Mean"] == pytest.approx((summary["J-Mean"] + summary["F-Mean"]) / 2)


def test_cli_writes_what_the_toolkit_writes(scored_davis):
    root, results = scored_davis
    (results / "settings.json").write_text('{"config": "a.yaml", "checkpoint": "sha256:0"}')
    done = run_cli(root, results, "--protocol", "davis", "paper", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "protocol davis: one assignment per sequence" in done.stdout
    assert "protocol paper: a new assignment in every frame" in done.stdout
    for protocol in BOTH:
        folder = results / "scores" / protocol
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["global_results-val.csv", "per-sequence_results-val.csv", "scores-val.json", "sequences"]
        header, row = (folder / "global_results-val.csv").read_text().splitlines()
        assert header == "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"
        assert re.fullmatch(r"(-?\d\.\d{3},?){7}", row)
        lines = (folder / "per-sequence_results-val.csv").read_text().splitlines()
        assert lines[0] == "Sequence,J-Mean,F-Mean"
        assert [line.split(",")[0] for line in lines[1:]] == ["dogs_1", "dogs_2", "cat_1", "cat_2"]
        content = json.loads((folder / "scores-val.json").read_text())
        assert content["protocol"] == protocol
        assert content["provenance"] == {"config": "a.yaml", "checkpoint": "sha256:0"}
        assert content["sequences"]["cat"]["proposals"] == 3
        assert len(content["sequences"]["cat"]["assignment"]) == (2 if protocol == "davis" else 5)
        assert np.shape(content["sequences"]["cat"]["J"]) == (2, 3)
        assert {"python", "numpy", "opencv"} <= content["versions"].keys()


def test_cli_says_which_results_have_no_annotation(scored_davis):
    root, results = scored_davis
    (root / "Annotations_unsupervised/480p/cat/00003.png").unlink()
    done = run_cli(root, results, "--workers", "1", "--scores_path", str(root / "scores"))
    assert done.returncode == 0, done.stderr
    assert "note: cat: 1 of 5 results have no annotation and are not scored, first 00003" in done.stderr
    assert "note: dogs" not in done.stderr


def test_scores_are_never_reused(scored_davis):
    root, results = scored_davis
    old = scoring.score(results, folders(root), workers=1)["davis"]
    score_files.write_scores(old, results, split="val")
    write_video(results / "cat", moving_squares(5, (1, 2), seed=0))
    new = scoring.score(results, folders(root), workers=1)["davis"]
    folder = score_files.write_scores(new, results, split="val", provenance={"config": "b"})
    content = json.loads((folder / "scores-val.json").read_text())
    assert new.summary()["J-Mean"] > old.summary()["J-Mean"]
    assert content["global"] == new.summary()
    assert content["provenance"] == {"config": "b"}


def test_table_shows_sequences_and_the_global_row(scored_davis):
    root, results = scored_davis
    lines = []
    score_files.print_table(scoring.score(results, folders(root), workers=1)["davis"], out=lines.append)
    assert [line.split()[0] for line in lines] == ["protocol", "sequence", "dogs", "cat", "all", "J&F-Mean", "J&F-Mean"]


# What the user can mend


def spoil_missing_frame(root, results):
    (results / "cat" / "00002.png").unlink()


def spoil_missing_sequence(root, results):
    for path in (results / "cat").iterdir():
        path.unlink()
    (results / "cat").rmdir()


def spoil_size(root, results):
    write_label_png(results / "cat" / "00002.png", np.zeros((36, 47), dtype=int))


def spoil_colours(root, results):
    Image.fromarray(np.zeros((36, 48, 3), dtype=np.uint8)).save(results / "cat" / "00002.png")


def spoil_count(root, results):
    write_label_png(results / "cat" / "00002.png", np.full((36, 48), 21))


def spoil_annotation(root, results):
    ((root / "Annotations_unsupervised/480p/cat") / "00002.png").write_bytes(b"\x89PNG")


def spoil_empty(root, results):
    for path in (root / "Annotations_unsupervised/480p/cat").iterdir():
        path.unlink()


FAULTS = [
    (spoil_missing_frame, r"results/cat/00002\.png: .*predict this one"),
    (spoil_missing_sequence, r"results/cat: .*1 of 2 sequences"),
    (spoil_size, r"00002\.png: .*47x36 .*48x36 .*cat/00002\.png; write"),
    (spoil_colours, r"00002\.png: .*RGB"),
    (spoil_count, r"cat/00002.png: .*21, .*20; .*--protocol paper"),
    (spoil_annotation, r"480p/cat/00002\.png: not a whole, readable PNG"),
    (spoil_empty, r"480p/cat: .*check --annotations"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_faults_are_named(scored_davis, spoil, message):
    root, results = scored_davis
    spoil(root, results)
    with pytest.raises(UserError, match=message) as caught:
        scoring.score(results, folders(root), workers=1)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


@pytest.mark.usefixtures("eager")
def test_a_fault_in_a_worker_reaches_the_caller(scored_davis):
    root, results = scored_davis
    spoil_missing_frame(root, results)
    with pytest.raises(UserError, match=r"00002\.png: .*predict this one"):
        scoring.score(results, folders(root), workers=2)


def test_a_missing_annotation_folder_is_named():
    with pytest.raises(UserError, match="nowhere: .*check --annotations"):
        find_label_files(Path("nowhere"))


def test_too_many_proposals_for_davis_are_fine_for_paper(scored_davis):
    root, results = scored_davis
    spoil_count(root, results)
    assert scoring.score(results, folders(root), protocols=["paper"], workers=1)["paper"].sequences


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"results": "nowhere"}, "nowhere: no such folder of results"),
        ({"annotations": {}}, "no sequences to score"),
        ({"protocols": ["vos"]}, "'vos' is unknown; choose from davis, paper, foreground"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_requests_that_make_no_sense(scored_davis, change, message):
    root, results = scored_davis
    request = {"results": results, "annotations": folders(root), **change}
    with pytest.raises(UserError, match=message):
        scoring.score(request.pop("results"), request.pop("annotations"), **request)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--split_file", "ImageSets/none.txt"), "none.txt: no such split file; check --davis_path and --split_file"),
        (("--workers", "1"), "settings.json: not valid JSON"),
    ],
)
def test_cli_faults_are_one_line_and_exit_code_two(scored_davis, extra, message):
    root, results = scored_davis
    (results / "settings.json").write_text("{")
    done = run_cli(root, results, *extra)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (results / "scores").exists()
