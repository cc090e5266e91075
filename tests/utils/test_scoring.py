"""Folders of PNGs to scores: goldens, both protocols against the slow reference, files, user faults."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.utils import reference_scoring as reference
from utils.errors import UserError
from utils.png import write_label_png
from utils.scoring import score as scoring
from utils.scoring import tables as score_files
from utils.scoring.__main__ import note_unscored
from utils.scoring.annotations import LabelFiles, find_label_files
from utils.scoring.metrics import VOID, statistics
from utils.scoring.sequence import SequenceScores

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
ANNOTATIONS = SHARED / "data" / "davis17_dev" / "Annotations_unsupervised" / "480p"
GOLDENS = SHARED / "goldens" / "rvos_scores.json"
BOTH = ("davis", "paper")


def write_video(folder: Path, labels: np.ndarray) -> Path:
    for k, frame in enumerate(labels):
        write_label_png(folder / f"{k:05d}.png", frame)
    return folder


def moving_squares(frames: int, ids: tuple[int, ...] = (1, 2), seed: int = 0) -> np.ndarray:
    """Label maps (frames, 36, 48): one drifting square per id, jittered by `seed`."""
    rng = np.random.default_rng(seed)
    video = np.zeros((frames, 36, 48), dtype=np.int32)
    for k, label in enumerate(ids):
        for t in range(frames):
            y, x = 2 + 9 * k % 24 + rng.integers(0, 4), 2 + (5 * t + 11 * k) % 32 + rng.integers(0, 4)
            video[t, y : y + 9, x : x + 9] = label
    return video


@pytest.fixture
def davis(tmp_path):
    """A DAVIS root with two sequences, and results for both: (root, results)."""
    root, results = tmp_path / "DAVIS", tmp_path / "results"
    for seed, name in enumerate(["cat", "dogs"]):
        gt = moving_squares(5, seed=seed)
        gt[:, :3, :5] = VOID
        write_video(root / "Annotations_unsupervised" / "480p" / name, gt)
        write_video(results / name, moving_squares(5, ids=(2, 1, 3), seed=seed + 10))
    split = root / "ImageSets" / "2017" / "val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("dogs\ncat\n")
    return root, results


def folders(root: Path) -> dict[str, LabelFiles]:
    return {name: find_label_files(root / "Annotations_unsupervised" / "480p" / name) for name in ("dogs", "cat")}


def score_sequence(annotations: Path, results: Path, protocols=("davis",)) -> dict[str, SequenceScores]:
    return scoring.score_sequence(
        scoring.Job(results.name, find_label_files(annotations), results.parent, tuple(protocols))
    )


def run_cli(root: Path, results: Path, *extra: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "utils.scoring", "--davis_path", str(root), "--results", str(results)]
    return subprocess.run([*command, *extra], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_png_in_capitals_is_scored_alike(davis, capsys):
    root, results = davis
    before = scoring.score(results, folders(root), keep=True, progress=False)["davis"].summary()
    for path in [*(results / "cat").iterdir(), *(root / "Annotations_unsupervised/480p/dogs").iterdir()]:
        path.rename(path.with_suffix(".PNG"))
    note_unscored(results, folders(root))
    assert not capsys.readouterr().err
    assert scoring.score(results, folders(root), keep=True, progress=False)["davis"].summary() == before
    shutil.copy(results / "cat/00001.PNG", results / "cat/00001.png")
    with pytest.raises(UserError, match=r"cat/00001\.(png|PNG): .* keep one"):
        scoring.score(results, folders(root), progress=False)


# Agreement


@pytest.mark.skipif(not GOLDENS.is_file(), reason=f"no golden scores at {GOLDENS}")
@pytest.mark.parametrize("sequence", ["blackswan", "bmx-trees", "car-shadow", "dog"])
def test_goldens(sequence):
    golden = json.loads(GOLDENS.read_text())[sequence]
    scored = score_sequence(ANNOTATIONS / sequence, GOLDENS.parent / "rvos" / sequence, BOTH)
    for protocol in BOTH:
        np.testing.assert_allclose(scored[protocol].j, golden[protocol]["J"], atol=1e-6)
        np.testing.assert_allclose(scored[protocol].f, golden[protocol]["F"], atol=1e-6)
    assert scored["davis"].assignment == tuple(golden["davis"]["assignment"])


@pytest.mark.parametrize("proposals", [(1, 2, 3, 4), (3, 1), (2,), ()])
@pytest.mark.parametrize("seed", range(3))
def test_both_protocols_agree_with_the_slow_reference(tmp_path, proposals, seed):
    gt, result = moving_squares(6, (1, 2, 3), seed), moving_squares(6, proposals, seed + 50)
    gt[::2, 20:24, 10:20], gt[3][gt[3] == 2] = VOID, 0
    result[2][result[2] == 3] = 0
    num = max(3, *proposals, 0)
    tables = [reference.frame_scores(a, b, [1, 2, 3], num) for a, b in zip(gt, result, strict=True)]
    j, f = (np.stack(parts) for parts in zip(*tables, strict=True))
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", result), BOTH)
    for protocol in BOTH:
        expected = reference.matched_scores(j, f, protocol)
        ours = np.array(scored[protocol].j)[:, 0] + np.array(scored[protocol].f)[:, 0]
        # Ties may be broken otherwise, so what is compared is what the assignment maximises.
        assert ours.sum() == pytest.approx(sum(part.mean(axis=0).sum() for part in expected), abs=1e-12)


def test_an_assignment_without_ties_gives_the_reference_statistics(tmp_path):
    gt, result = moving_squares(9, (1, 2)), moving_squares(9, (2, 1), seed=3)
    tables = [reference.frame_scores(a, b, [1, 2], 2) for a, b in zip(gt, result, strict=True)]
    j, f = reference.matched_scores(*(np.stack(parts) for parts in zip(*tables, strict=True)), "davis")
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", result))["davis"]
    assert scored.assignment == (1, 0)
    np.testing.assert_allclose(scored.j, [statistics(values) for values in j.T])
    np.testing.assert_allclose(scored.f, [statistics(values) for values in f.T])


def test_a_perfect_result_scores_one_whatever_its_labels(tmp_path):
    gt = moving_squares(6, (1, 2, 3))
    renamed = np.array([0, 3, 1, 2])[gt]
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", renamed), BOTH)
    assert scored["davis"].assignment == (2, 0, 1)
    for protocol in BOTH:
        assert scored[protocol].j == scored[protocol].f == ((1.0, 1.0, 0.0),) * 3


def test_permuting_labels_changes_only_the_assignment(tmp_path):
    gt, result = moving_squares(6, (1, 2)), moving_squares(6, (1, 2, 3, 4), seed=9)
    order = np.array([0, 4, 3, 1, 2])
    write_video(tmp_path / "gt", gt)
    before = score_sequence(tmp_path / "gt", write_video(tmp_path / "r", result), BOTH)
    after = score_sequence(tmp_path / "gt", write_video(tmp_path / "p", order[result]), BOTH)
    for protocol in BOTH:
        np.testing.assert_allclose(before[protocol].j, after[protocol].j)
        np.testing.assert_allclose(before[protocol].f, after[protocol].f)
    assert tuple(order[p + 1] - 1 for p in before["davis"].assignment) == after["davis"].assignment


def test_identity_over_time_counts_under_davis_only(tmp_path):
    gt = moving_squares(8, (1, 2))
    swapped = gt.copy()
    swapped[4:] = np.array([0, 2, 1])[gt[4:]]
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", swapped), BOTH)
    assert scored["paper"].j_mean == 1.0
    assert scored["davis"].j_mean < 0.6
    assert scored["paper"].assignment[0] != scored["paper"].assignment[-1]


def test_an_object_that_is_absent_is_matched_to_an_absent_proposal(tmp_path):
    gt = moving_squares(4, (1, 2))
    gt[:2][gt[:2] == 2] = 0
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", gt), BOTH)
    assert scored["paper"].j_mean == scored["davis"].j_mean == 1.0
    full = gt.copy()
    full[:, 30:] = 2
    scored = score_sequence(tmp_path / "gt", write_video(tmp_path / "f", full), ("paper",))
    assert scored["paper"].j[1].mean < 0.6


def test_absent_proposals_are_offered_beside_any_number_of_present_ones(tmp_path):
    gt, result = moving_squares(4, (1,)), moving_squares(4, (1, 2, 3, 4), seed=5)
    gt[1], result[1][result[1] == 4] = 0, 0
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", result), BOTH)
    assert scored["paper"].assignment[1] == (3,)


def test_objects_that_appear_late_or_never_count_in_every_frame(tmp_path):
    gt = moving_squares(4, (1,))
    gt[3, 30:, 30:] = 3
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", gt))["davis"]
    assert len(scored.j) == 3
    assert scored.j_mean == 1.0


def test_fewer_proposals_than_objects_are_padded_with_empty_ones(tmp_path):
    gt = moving_squares(4, (1, 2))
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", (gt == 2) * 1))
    assert scored["davis"].assignment == (None, 0)
    assert [values.mean for values in scored["davis"].j] == [0.0, 1.0]


def test_hundreds_of_proposals_under_paper(tmp_path):
    rng = np.random.default_rng(0)
    result = np.kron(rng.integers(0, 1500, (3, 9, 12)), np.ones((1, 4, 4), dtype=int))
    result[:, 10:20, 10:20] = 40000
    gt = (result == 40000) * 1
    scored = score_sequence(write_video(tmp_path / "gt", gt), write_video(tmp_path / "r", result), ["paper"])
    assert scored["paper"].assignment == ((39999,),) * 3
    assert scored["paper"].j_mean == 1.0
    assert scored["paper"].proposals > 250


def test_sparse_annotations_choose_the_frames(tmp_path):
    gt = moving_squares(9, (1, 2))
    write_video(tmp_path / "r", gt)
    write_video(tmp_path / "gt", gt)
    for k in (1, 2, 3, 5, 6, 7):
        (tmp_path / "gt" / f"{k:05d}.png").unlink()
    assert score_sequence(tmp_path / "gt", tmp_path / "r")["davis"].frames == 3


# The whole run


@pytest.fixture
def eager(monkeypatch):
    """Processes even for a handful of frames."""
    monkeypatch.setattr(scoring, "FRAMES_PER_PROCESS", 1)


@pytest.mark.usefixtures("eager")
def test_workers_change_nothing(davis):
    root, results = davis
    alone = scoring.score(results, folders(root), protocols=BOTH, workers=1)
    together = scoring.score(results, folders(root), protocols=BOTH, workers=2, progress=False)
    assert alone == together
    assert [sequence.sequence for sequence in alone["davis"].sequences] == ["dogs", "cat"]


def test_global_row_weighs_every_object_alike(davis):
    root, results = davis
    scores = scoring.score(results, folders(root), workers=1)["davis"]
    objects = np.array([values for sequence in scores.sequences for values in sequence.j])
    summary = scores.summary()
    assert summary["J-Mean"] == pytest.approx(objects[:, 0].mean())
    assert summary["J-Decay"] == pytest.approx(objects[:, 2].mean())
    assert summary["J&F-Mean"] == pytest.approx((summary["J-Mean"] + summary["F-Mean"]) / 2)


def test_cli_writes_what_the_toolkit_writes(davis):
    root, results = davis
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


def test_cli_says_which_results_have_no_annotation(davis):
    root, results = davis
    (root / "Annotations_unsupervised/480p/cat/00003.png").unlink()
    done = run_cli(root, results, "--workers", "1", "--scores_path", str(root / "scores"))
    assert done.returncode == 0, done.stderr
    assert "note: cat: 1 of 5 results have no annotation and are not scored, first 00003" in done.stderr
    assert "note: dogs" not in done.stderr


def test_scores_are_never_reused(davis):
    root, results = davis
    old = scoring.score(results, folders(root), workers=1)["davis"]
    score_files.write_scores(old, results, split="val")
    write_video(results / "cat", moving_squares(5, (1, 2), seed=0))
    new = scoring.score(results, folders(root), workers=1)["davis"]
    folder = score_files.write_scores(new, results, split="val", provenance={"config": "b"})
    content = json.loads((folder / "scores-val.json").read_text())
    assert new.summary()["J-Mean"] > old.summary()["J-Mean"]
    assert content["global"] == new.summary()
    assert content["provenance"] == {"config": "b"}


def test_table_shows_sequences_and_the_global_row(davis):
    root, results = davis
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
    (spoil_missing_frame, r"results/cat/00002\.png: no such file"),
    (spoil_missing_sequence, r"results/cat: no such folder; the results lack 1 of 2 sequences"),
    (spoil_size, r"00002\.png: is 47x36 but 48x36 in .*cat/00002\.png; write"),
    (spoil_colours, r"00002\.png: an image of mode RGB"),
    (spoil_count, r"cat/00002.png: has proposal ids up to 21, davis allows 20; .*--protocol paper"),
    (spoil_annotation, r"480p/cat/00002\.png: not a whole"),
    (spoil_empty, r"480p/cat: no PNG annotations"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_faults_are_named(davis, spoil, message):
    root, results = davis
    spoil(root, results)
    with pytest.raises(UserError, match=message) as caught:
        scoring.score(results, folders(root), workers=1, progress=False)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


@pytest.mark.usefixtures("eager")
def test_a_fault_in_a_worker_reaches_the_caller(davis):
    root, results = davis
    spoil_missing_frame(root, results)
    with pytest.raises(UserError, match=r"00002\.png: no such file"):
        scoring.score(results, folders(root), workers=2, progress=False)


def test_a_missing_annotation_folder_is_named():
    with pytest.raises(UserError, match="nowhere: no such annotation folder; check --annotations"):
        find_label_files(Path("nowhere"))


def test_too_many_proposals_for_davis_are_fine_for_paper(davis):
    root, results = davis
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
def test_requests_that_make_no_sense(davis, change, message):
    root, results = davis
    request = {"results": results, "annotations": folders(root), **change}
    with pytest.raises(UserError, match=message):
        scoring.score(request.pop("results"), request.pop("annotations"), **request)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--split_file", "ImageSets/none.txt"), "none.txt: no such split file; check"),
        (("--workers", "1"), "settings.json: not valid JSON"),
    ],
)
def test_cli_faults_are_one_line_and_exit_code_two(davis, extra, message):
    root, results = davis
    (results / "settings.json").write_text("{")
    done = run_cli(root, results, *extra)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (results / "scores").exists()
