"""Scores of a sequence: goldens, both protocols against the slow reference, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.utils import reference_scoring as reference
from tests.utils.label_folders import moving_squares, write_video
from utils.scoring import score as scoring
from utils.scoring.annotations import VOID, find_label_files
from utils.scoring.metrics import statistics
from utils.scoring.sequence import SequenceScores

SHARED = Path(__file__).resolve().parents[3] / "shared"
ANNOTATIONS = SHARED / "data" / "davis17_dev" / "Annotations_unsupervised" / "480p"
GOLDENS = SHARED / "goldens" / "rvos_scores.json"
BOTH = ("davis", "paper")


def score_sequence(annotations: Path, results: Path, protocols=("davis",)) -> dict[str, SequenceScores]:
    return scoring.score_sequence(
        scoring.Job(results.name, find_label_files(annotations), results.parent, tuple(protocols))
    )


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
