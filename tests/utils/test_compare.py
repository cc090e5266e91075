"""Bootstrap intervals and the comparison of two folders of results."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.utils.label_folders import folders, moving_squares, write_video
from utils import compare
from utils.agreement import match_objects
from utils.errors import UserError
from utils.scoring import score as scoring
from utils.scoring.bootstrap import LEVEL, SAMPLES, bootstrap_difference, bootstrap_interval
from utils.scoring.tables import write_scores


def test_interval_of_a_constant_has_no_width():
    assert bootstrap_interval(np.full(5, 0.6), np.full(5, 2.0)) == pytest.approx((0.3, 0.3, 0.3))


def test_interval_is_that_of_scipy():
    rng = np.random.default_rng(2)
    for count in (2, 7, 30):
        sums, weights = rng.random(count), rng.integers(1, 5, count).astype(float)
        found = stats.bootstrap(
            (sums, weights), lambda s, w, axis: s.sum(axis=axis) / w.sum(axis=axis), paired=True, n_resamples=SAMPLES,
            confidence_level=LEVEL, method="percentile", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        assert bootstrap_interval(sums, weights)[1:] == pytest.approx(found, abs=1e-12)


def test_interval_is_near_the_normal_one():
    rng = np.random.default_rng(1)
    values = rng.normal(0.5, 0.1, 400)
    value, low, high = bootstrap_interval(values, np.ones(400))
    half = 1.96 * values.std() / 20
    assert (value, low, high) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=1e-3)


def test_interval_draws_sequences_not_objects():
    """Two sequences, of 9 objects at 1 and of 1 at 0: half of the samples draw one sequence twice."""
    value, low, high = bootstrap_interval(np.array([9.0, 0.0]), np.array([9.0, 1.0]))
    assert (value, low, high) == pytest.approx((0.9, 0.0, 1.0))


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(0)
    base = rng.random(30)
    value, low, high = bootstrap_difference(base, base + 0.05, np.ones(30))
    assert (value, low, high) == pytest.approx((0.05, 0.05, 0.05))
    assert bootstrap_difference(base, base, np.ones(30)) == pytest.approx((0, 0, 0))


@pytest.fixture
def scored(scored_davis, tmp_path):
    """Two scored folders; the second is right about `cat`."""
    root, first = scored_davis
    second = tmp_path / "second"
    write_video(second / "dogs", moving_squares(5, ids=(2, 1, 3), seed=11))
    write_video(second / "cat", moving_squares(5, seed=0))
    for results in (first, second):
        scores = scoring.score(results, folders(root), workers=1)["davis"]
        write_scores(scores, results, split="val")
    return first, second


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    compare.main()


def test_two_folders_side_by_side(scored, tmp_path, capsys, monkeypatch):
    run(monkeypatch, *scored, "--picture", tmp_path / "p" / "a.png")
    out = capsys.readouterr().out
    assert "J&F-Mean under protocol davis" in out
    assert "B is better on 1, worse on 0 of 2 sequences" in out
    assert (tmp_path / "p" / "a.png").stat().st_size > 5000
    first, second = (compare.find_scores(folder, "davis") for folder in scored)
    compared = compare.compare_scores(first, second, measure="J-Mean")
    assert compared.sequences == ["dogs", "cat"]
    assert compared.difference.value == pytest.approx(second.summary()["J-Mean"] - first.summary()["J-Mean"])
    assert compared.difference.low == 0 < compared.difference.high


def test_order_of_sequences_does_not_matter(scored):
    first, second = (compare.find_scores(folder, "davis") for folder in scored)
    turned = replace(second, sequences=second.sequences[::-1])
    a, b = (compare.compare_scores(first, scores, measure="F-Mean") for scores in (second, turned))
    assert (a.second == b.second).all()
    assert a.difference == b.difference


def test_the_common_sequences_are_compared_and_the_others_named(scored, capsys, monkeypatch):
    first, second = (compare.find_scores(folder, "davis") for folder in scored)
    for name, scores, folder in (("ant", first, scored[0]), ("bee", second, scored[1])):
        more = replace(scores.sequences[0], sequence=name)
        more = replace(scores, sequences=(more, *scores.sequences), ground_truth={**scores.ground_truth, name: name})
        write_scores(more, folder, split="val")
    run(monkeypatch, *scored)
    out, err = capsys.readouterr()
    assert "of 2 sequences" in out
    assert "ant" not in out
    assert "bee" not in out
    assert err.startswith("note: compared on the 2 common sequences, ")
    assert "1 of A alone (ant)" in err
    assert "1 of B alone (bee)" in err


def test_scores_that_cannot_be_compared_are_refused(scored, monkeypatch):
    first, second = (compare.find_scores(folder, "davis") for folder in scored)
    fewer = replace(second, sequences=second.sequences[:1])
    with pytest.raises(UserError, match="1 sequences; at least 2"):
        compare.compare_scores(first, fewer, measure="J-Mean")
    with pytest.raises(UserError, match="^.*dogs: .*score both on the same"):
        compare.compare_scores(first, replace(second, sequences=()), measure="J-Mean")
    with pytest.raises(UserError, match="--measure K: choose from J&F-Mean"):
        compare.compare_scores(first, second, measure="K")
    with pytest.raises(UserError, match="paper; score it first"):
        run(monkeypatch, *scored, "--protocol", "paper")
    other = replace(second, options={"toolkit_exact": True})
    with pytest.raises(UserError, match="scored with other options"):
        compare.compare_scores(first, other, measure="J-Mean")
    other = replace(second, ground_truth={"cat": "another"})
    with pytest.raises(UserError, match="cat: .*score both against one"):
        compare.compare_scores(first, other, measure="J-Mean")
    path = scored[0] / "scores" / "davis" / "scores-val.json"
    for damaged in ("[]", '{"protocol": "davis", "options": {}, "ground_truth": {}, "sequences": {"cat": []}}'):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"scores-val\.json: .*score the results again"):
            run(monkeypatch, *scored)
    path.with_name("scores-train.json").write_text("{}")
    with pytest.raises(UserError, match=r"\(train, val\); name one"):
        run(monkeypatch, *scored)
    path.with_name("scores-train.json").unlink()
    path.write_text("{}")
    with pytest.raises(UserError, match=r"scores-val\.json: .*score the results again"):
        run(monkeypatch, *scored)


# ------------------------------------------------------------------ without scores


def test_agreement_does_not_depend_on_ids_but_on_objects_that_are_missing():
    labels = moving_squares(4, ids=(1, 2, 3))
    swapped = np.choose(labels, [0, 300, 1, 2])
    assert match_objects(zip(labels, swapped, strict=True)) == 1
    without = np.where(labels == 3, 0, labels)
    assert match_objects(zip(labels, without, strict=True)) == pytest.approx(2 / 3)
    assert match_objects(zip(without, labels, strict=True)) == pytest.approx(2 / 3)
    assert match_objects(zip(labels, np.zeros_like(labels), strict=True)) == 0
    assert match_objects([(np.zeros((3, 4), int), np.zeros((3, 4), int))]) == 1


def test_agreement_is_the_iou_over_the_whole_video():
    first, second = np.zeros((2, 2, 10), int), np.zeros((2, 2, 10), int)
    first[:, 0, :8], second[0, 0, 2:10], second[1, 0, :8] = 1, 4, 4
    assert match_objects(zip(first, second, strict=True)) == pytest.approx((6 + 8) / (10 + 8))


def test_unscored_folders_are_compared_by_agreement(tmp_path, capsys, monkeypatch):
    for side, seed in (("a", 0), ("b", 1)):
        write_video(tmp_path / side / "cat", moving_squares(5, seed=seed))
        write_video(tmp_path / side / "dogs", moving_squares(5))
        write_video(tmp_path / side / f"only_{side}", moving_squares(5))
    run(monkeypatch, tmp_path / "a", tmp_path / "b")
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert "No scores" in lines[0]
    assert "2 common sequences, without 1 of A alone (only_a) and 1 of B alone (only_b)" in printed.err
    values = {name: float(value) for name, value in map(str.split, lines[-3:])}
    assert values.keys() == {"cat", "dogs", "mean"}
    assert 0 < values["cat"] < values["dogs"] == 100
    assert values["mean"] == pytest.approx((values["cat"] + 100) / 2, abs=0.06)


def test_masks_that_cannot_be_compared_are_refused(tmp_path, monkeypatch):
    first = write_video(tmp_path / "a/cat", moving_squares(5)).parent
    for name, labels, message in (
        ("short", moving_squares(4), "short/cat: .*00004; .*same frames"),
        ("small", moving_squares(5)[:, 1:], r"small/cat/00000\.png: .*same frames"),
    ):
        write_video(tmp_path / name / "cat", labels)
        with pytest.raises(UserError, match=message):
            run(monkeypatch, first, tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: .*a; segment"):
        run(monkeypatch, first, tmp_path / "empty")
    with pytest.raises(UserError, match="none: no such folder"):
        run(monkeypatch, first, tmp_path / "none")
    with pytest.raises(UserError, match="a: .*davis"):
        run(monkeypatch, first, first, "--measure", "J-Mean")
    for side, kind in (("a", "davis"), ("empty", "paper")):
        (tmp_path / side / "settings.json").write_text(f'{{"predictions": ["{kind}"]}}')
    with pytest.raises(UserError, match="davis in .*a and paper in"):
        run(monkeypatch, first, tmp_path / "empty")
