"""Protocols with one foreground, kept scores, the toolkit's 8-bit decay, archives."""

import itertools
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processes import end, run_ranks, start_ranks
from tests.utils.label_folders import folders, moving_squares, write_video
from utils.errors import UserError
from utils.png import write_label_png
from utils.results import write_archive
from utils.scoring import score as scoring
from utils.scoring.annotations import VOID, find_label_files
from utils.scoring.evaluators import Options, make_evaluators
from utils.scoring.metrics import statistics
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.sequence import SequenceScores
from utils.scoring.tables import Scores, print_side_by_side, print_table, read_scores, write_scores


def evaluate(protocol: str, gt: np.ndarray, labels: np.ndarray, **options) -> SequenceScores:
    """Scores of a sequence given as arrays (frames, H, W)."""
    (one,) = make_evaluators([protocol], Options(**options))
    for number in range(one.passes):
        for a, b in zip(gt, labels, strict=True):
            one.add(a.astype(np.int32), b.astype(np.int32), source="x.png", number=number)
    return one.results("x")[protocol]


def union_iou(gt: np.ndarray, labels: np.ndarray, ids: tuple[int, ...]) -> float:
    """IoU over all pixels of a sequence of the union of `ids` with all objects, void left out; by definition."""
    truth, mask, valid = (gt > 0) & (gt != VOID), np.isin(labels, ids), gt != VOID
    union = ((truth | mask) & valid).sum()
    return float((truth & mask & valid).sum() / union) if union else 1.0


def test_foreground_merges_ids_and_objects_and_leaves_void_out():
    gt, labels = np.zeros((2, 8, 8), dtype=int), np.zeros((2, 8, 8), dtype=int)
    gt[:, 2:4, 2:4], gt[:, 4:6, 2:4], gt[:, 0] = 1, 2, VOID  # 8 pixels of objects
    labels[0, 2:4, 2:4], labels[0, 4:6, 2:4], labels[0, 0] = 7, 3, 1  # exactly these, and void
    labels[1, 2:4, 2:6] = 5  # 4 of the 8, and 4 beside them
    scores = evaluate("foreground", gt, labels)
    assert len(scores.j) == 1
    assert scores.j[0].mean == pytest.approx((1 + 4 / 12) / 2)
    assert scores.f[0].mean <= 1
    assert scores.proposals == 4


def test_single_object_data_sets_have_both_means():
    gt = np.zeros((3, 8, 8), dtype=int)
    gt[:, 2:4, 2:4] = 1
    good, bad = evaluate("foreground", gt, gt), evaluate("foreground", gt[:1], 0 * gt[:1])
    summary = Scores("foreground", (good, bad)).summary()
    assert summary["J-Mean"] == pytest.approx(0.5)  # of two sequences
    assert summary["J-Mean of frames"] == pytest.approx(0.75)  # of four frames


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_oracle_finds_the_best_union(seed):
    rng = np.random.default_rng(seed)
    gt = np.where(rng.random((3, 6, 7)) < 0.1, VOID, rng.integers(0, 3, (3, 6, 7)))
    labels = rng.integers(0, 5, (3, 6, 7))
    chosen = evaluate("oracle", gt, labels).assignment
    subsets = itertools.chain.from_iterable(itertools.combinations(range(1, 5), n) for n in range(5))
    best = max(union_iou(gt, labels, ids) for ids in subsets)
    assert union_iou(gt, labels, chosen) == pytest.approx(best)


def test_oracle_scores_what_it_chose():
    gt, labels = np.zeros((2, 6, 6), dtype=int), np.zeros((2, 6, 6), dtype=int)
    gt[:, 1:5, 1:5] = 1
    labels[:, 1:3, 1:5], labels[:, 3:5, 1:5], labels[:, 5] = 4, 2, 3
    scores = evaluate("oracle", gt, labels)
    assert scores.assignment == (2, 4)
    assert scores.j[0].mean == scores.f[0].mean == 1


def test_eight_bit_decay_is_the_toolkits():
    values = np.random.default_rng(0).random(400)
    # Quarters of 400 frames begin at 0, 100, 200, 299 and end at 399; 299 and 399 are 43 and 143 in 8 bits.
    with_bug, plain = statistics(values, eight_bit=True), statistics(values)
    assert plain.decay == pytest.approx(values[:101].mean() - values[299:400].mean())
    assert with_bug.decay == pytest.approx(values[:101].mean() - values[43:144].mean())
    assert with_bug[:2] == plain[:2]
    assert np.isnan(statistics(values[:300], eight_bit=True).decay)  # an empty quarter there
    assert statistics(values[:256], eight_bit=True) == statistics(values[:256])


def test_scores_are_kept_for_the_same_files_only(scored_davis, monkeypatch):
    root, results = scored_davis
    first = scoring.score(results, folders(root), protocols=["davis", "paper"], keep=True, workers=1)
    seen = []
    read = scoring._read_pair
    monkeypatch.setattr(scoring, "_read_pair", lambda *args: seen.append(args[2]) or read(*args))
    assert scoring.score(results, folders(root), protocols=["davis", "paper"], keep=True, workers=1) == first
    assert not seen
    write_label_png(results / "cat" / "00002.png", moving_squares(3)[2])
    assert scoring.score(results, folders(root), protocols=["davis"], keep=True, workers=1) != first
    assert {path.parent.name for path in seen} == {"cat"}
    seen.clear()
    gt = root / "Annotations_unsupervised" / "480p" / "dogs" / "00000.png"
    write_label_png(gt, moving_squares(1, seed=9)[0])
    scoring.score(results, folders(root), protocols=["davis"], keep=True, workers=1)
    assert {path.parent.name for path in seen} == {"dogs"}
    seen.clear()
    scoring.score(
        results, folders(root), protocols=["davis"], keep=True, options=Options(toolkit_exact=True), workers=1
    )
    assert {path.parent.name for path in seen} == {"dogs", "cat"}


def test_damaged_kept_scores_are_done_anew(scored_davis):
    root, results = scored_davis
    first = scoring.score(results, folders(root), keep=True, workers=1)
    for path in (results / "scores" / "davis" / "sequences").iterdir():
        path.write_text(path.read_text()[:-9])
    assert scoring.score(results, folders(root), keep=True, workers=1) == first


def test_two_processes_score_what_one_does(scored_davis, tmp_path):
    root, results = scored_davis
    alone = scoring.score(results, folders(root), protocols=list(PROTOCOLS), workers=1)
    arguments = ["--davis_path", root, "--results", results, "--protocol", "all", "--scores_path", results]
    run_ranks("utils.scoring.__main__", *arguments, folder=tmp_path)
    printed = "".join((tmp_path / f"rank{rank}.out").read_text() for rank in range(2))
    for protocol, scores in alone.items():
        content = json.loads((results / "scores" / protocol / "scores-val.json").read_text())
        assert content["global"] == pytest.approx(scores.summary() | unknown(content["global"]))
        assert printed.count(f"protocol {protocol}:") == 1


def unknown(summary: dict) -> dict:
    """What JSON has no number for: five frames hold no clip of six."""
    missing = {name: value for name, value in summary.items() if value is None}
    assert set(missing) <= {"fg_ari_clip", "mbo_clip", "miou_clip", "AP_small", "AP_medium", "AP_large"}
    return missing


def test_protocols_side_by_side(scored_davis, capsys):
    root, results = scored_davis
    scored = scoring.score(results, folders(root), protocols=["davis", "paper"], workers=1)
    print_side_by_side(list(scored.values()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["sequence", "davis", "paper"]
    assert [line.split()[0] for line in lines[2:]] == ["dogs", "cat", "all"]
    assert lines[-1].split()[1] == f"{100 * scored['davis'].summary()['J&F-Mean']:.1f}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_survive_their_file(scored_davis, tmp_path, protocol):
    root, results = scored_davis
    scores = scoring.score(results, folders(root), protocols=[protocol], workers=1)[protocol]
    again = read_scores(write_scores(scores, tmp_path, split="val") / "scores-val.json")
    assert [sequence.to_json() for sequence in again.sequences] == [s.to_json() for s in scores.sequences]
    assert again.summary() == pytest.approx(scores.summary(), nan_ok=True)
    lines = []
    print_table(again, out=lines.append)
    assert lines[0].startswith(f"protocol {protocol}: ")
    assert lines[2].split()[0] == "dogs"


def test_identity_is_counted_under_davis():
    """One object, two proposals that swap half way: J&F of 1 in every frame, matched once half of it is lost."""
    gt, labels = np.zeros((4, 12, 12), dtype=int), np.zeros((4, 12, 12), dtype=int)
    gt[:, 3:7, 3:7] = 1
    labels[:2, 3:7, 3:7], labels[2:, 3:7, 3:7] = 1, 2
    identity = evaluate("davis", gt, labels).identity
    assert identity.gap == pytest.approx(0.5)
    assert (identity.switches, identity.visible) == (1, 4)
    assert evaluate("paper", gt, labels).identity is None


def test_names_of_groups_of_protocols():
    assert scoring.expand_protocol_names(["both"], ()) == ["davis", "paper"]
    assert scoring.expand_protocol_names(["paper", "all"], ("davis", "paper", "oracle")) == ["paper", "davis", "oracle"]


def test_archive_has_the_layout_of_the_server(tmp_path):
    write_video(tmp_path / "r" / "cat", moving_squares(2))
    write_video(tmp_path / "r" / "scores", moving_squares(1))
    write_archive(tmp_path / "a.zip", tmp_path / "r", ["cat"])
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["cat/00000.png", "cat/00001.png"]


def test_sequences_without_objects_are_left_out_and_named(scored_davis):
    root, results = scored_davis
    empty = np.zeros((5, 36, 48), dtype=int)
    write_video(root / "Annotations_unsupervised/480p/cat", empty)
    for protocol, scores in scoring.score(results, folders(root), protocols=list(PROTOCOLS), workers=1).items():
        alone = scoring.score(results, {"dogs": folders(root)["dogs"]}, protocols=[protocol], workers=1)[protocol]
        if protocol != "tracks":  # where proposals in a video without objects are false positives
            assert scores.without_objects == ["cat"]
            counted = {k: v for k, v in scores.summary().items() if not k.startswith("ari")}
            expected = {k: v for k, v in alone.summary().items() if not k.startswith("ari")}
            assert counted == pytest.approx(expected, nan_ok=True)
        lines = []
        print_table(scores, out=lines.append)
        assert any("left out of the means: cat" in line for line in lines) == (protocol != "tracks")
        assert not any("bootstrap" in line for line in lines)  # one sequence is left
    write_video(root / "Annotations_unsupervised/480p/dogs", empty)
    with pytest.raises(UserError, match="only 0 and void in any frame, as in all sequences"):
        scoring.score(results, folders(root), workers=1)


def test_the_first_frames_objects_may_be_none(scored_davis):
    root, results = scored_davis
    gt = moving_squares(5)
    gt[0] = 0
    write_video(root / "Annotations_unsupervised/480p/cat", gt)
    options = Options(first_frame_objects=True)
    scores = scoring.score(results, folders(root), protocols=["slots"], options=options, workers=1)["slots"]
    assert scores.without_objects == ["cat"]


def test_davis_2016s_toolkit_leaves_out_first_and_last_frame():
    gt, labels = np.zeros((4, 8, 8), dtype=int), np.zeros((4, 8, 8), dtype=int)
    gt[:, 2:4, 2:4] = 1
    labels[1:3] = gt[1:3]
    assert evaluate("foreground", gt, labels).j[0].mean == pytest.approx(0.5)
    assert evaluate("foreground", gt, labels, toolkit_exact=True).j[0].mean == 1


def test_frames_are_in_the_order_of_their_numbers(scored_davis):
    root, _ = scored_davis
    folder = root / "unpadded"
    for index in range(12):
        write_label_png(folder / f"{index}.png", moving_squares(1)[0])
    assert find_label_files(folder).frame_names == [str(index) for index in range(12)]


def test_options_that_a_protocol_does_not_have_change_nothing_kept(scored_davis, monkeypatch):
    root, results = scored_davis
    first = scoring.score(results, folders(root), keep=True, workers=1)
    monkeypatch.setattr(scoring, "_read_pair", lambda *args: pytest.fail("scored again"))
    assert (
        scoring.score(results, folders(root), keep=True, options=Options(first_frame_objects=True), workers=1) == first
    )


def test_a_fault_of_one_process_is_that_of_all(scored_davis, tmp_path):
    root, results = scored_davis
    (results / "cat" / "00002.png").unlink()
    arguments = ["--davis_path", root, "--results", results]
    for rank, process in enumerate(start_ranks("utils.scoring.__main__", *arguments, folder=tmp_path)):
        assert end(process) == 2
        (line,) = (line for line in (tmp_path / f"rank{rank}").read_text().splitlines() if "error: " in line)
        assert "00002.png: no such file" in line  # it did not wait for a process that was gone
    assert not (results / "scores" / "davis" / "scores-val.json").exists()
