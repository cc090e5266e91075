"""What eval.py --explore keeps of a video: how exact it is, how large, and what happens where it cannot be kept."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model import clustering as plain
from model.segmenter import key_frame_indices
from tests.explanations import decode, read_arguments, read_centres, read_rows
from tests.model.inputs import make_network, make_segmenter, video
from utils.errors import UserError
from utils.report.attention import (
    ABOUT,
    announce_space,
    estimate_bytes,
    is_kept,
    link_explanation,
    write_explanation,
)


@pytest.fixture
def explained(tiny_weights):
    """explained(...): a network, frames, and what a segmenter with these settings found in them."""

    def make(**settings):
        network = make_network(tiny_weights, num_blocks=settings.pop("num_blocks", 1))
        network.init_blocks("identity", temperature=3.0)
        frames = video(7)
        segmenter = make_segmenter(network, key_stride=2, explain=True, **{"tau": 0.05, **settings})
        return network, frames, segmenter, segmenter.segment(frames, num_frames=7)

    return make


@pytest.mark.parametrize("settings", [
    {"clustering": "exact"}, {"clustering": "plain"}, {"clustering": "fast"}, {"num_blocks": 2},
], ids=str)  # fmt: skip
def test_rows_and_distances_are_those_of_the_formulas(explained, tmp_path, settings):
    """Against float64, entries of rows are off by at most 1e-4 and distances by 2e-3 nats."""
    network, frames, _, found = explained(**settings)
    write_explanation(tmp_path / "v", found.explanation, range(7))
    features = network.refine(network.encode(torch.stack(frames)), key_frame_indices(7, 2))
    key_features = features[key_frame_indices(7, 2)].flatten(0, 1)
    keys, centres = network.keys(key_features).double(), read_centres(tmp_path / "v")
    fast = settings.get("clustering") == "fast"
    for position in range(7):
        rows = plain.attention(network.queries(features[position]).double(), keys)
        read = read_rows(tmp_path / "v", position)
        assert (read - rows).abs().max() < 1e-4
        near = plain.symmetric_kl(rows, centres)
        assert (plain.symmetric_kl(read, centres) - near).abs().max() < 2e-3
        labels = decode(read_arguments(tmp_path / "v" / f"query_{position:05d}.js")[3], "<u2")
        queries = network.queries(features[position]).double()
        sums = torch.logsumexp(queries @ keys.mT / queries.shape[2] ** 0.5, dim=2).T.ravel()
        kept = decode(read_arguments(tmp_path / "v" / f"query_{position:05d}.js")[4], "<f4")
        assert kept.tolist() == pytest.approx(sums.tolist(), abs=1e-4)
        assert labels.tolist() == found.labels[position].ravel().tolist()
        if not fast:  # which finds clusters over other columns
            own = near.gather(1, torch.from_numpy(labels.astype(np.int64))[:, None])[:, 0]
            assert (own - near.min(1).values).max() < 2e-3
    assert (centres.sum(1) - 1).abs().max() < 1e-2


def test_centres_of_fast_are_means_of_rows(explained, tmp_path):
    _, _, _, found = explained(clustering="fast")
    write_explanation(tmp_path / "v", found.explanation, range(7))
    rows = torch.cat([read_rows(tmp_path / "v", position) for position in range(7)])
    labels = torch.from_numpy(found.labels.reshape(-1))
    for cluster, centre in enumerate(read_centres(tmp_path / "v")):
        if (labels == cluster).any():
            torch.testing.assert_close(centre, rows[labels == cluster].mean(0), atol=1e-4, rtol=1e-2)


def test_labels_do_not_depend_on_it(explained, tiny_weights):
    network, frames, _, found = explained()
    bare = make_segmenter(network, key_stride=2, tau=0.05).segment(frames, num_frames=7)
    assert bare.explanation is None
    assert bare.labels.tolist() == found.labels.tolist()


def test_the_size_is_the_one_that_was_announced(explained, tmp_path, capsys):
    _, _, segmenter, found = explained()
    write_explanation(tmp_path / "explore/v", found.explanation, range(0, 7, 2))
    size = sum(path.stat().st_size for path in (tmp_path / "explore/v").iterdir())
    measured = segmenter.measure_explanation(7, (48, 80)) | {"clusters": found.num_clusters}
    expected = estimate_bytes(frames=4, **measured)
    assert size == pytest.approx(expected, rel=0.1)
    announce_space({"v": 31_000_000, "w": 1_000_000}, tmp_path)
    assert "note: --explore keeps about 32 MB of disk" in capsys.readouterr().err
    announce_space({}, tmp_path)
    assert not capsys.readouterr().err


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, capsys):
    """By free disk alone; where there are no hard links, the report has copies."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 15 * 10**9))
    announce_space({"v": 1, "w": 9_000_000_000}, tmp_path)

    def fail(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        announce_space({"v": 7_000_000_000}, tmp_path)
        assert f"14000 MB of disk in {tmp_path}, with copies" in capsys.readouterr().err
        with pytest.raises(UserError, match="--explore: .*18000 MB.*15000 MB.*free space"):
            announce_space({"v": 1, "w": 9_000_000_000}, tmp_path)
    with pytest.raises(UserError, match="--explore: .*--save_path .*new has .* left; free space"):
        announce_space({"v": 10**18}, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(explained, tmp_path, monkeypatch):
    _, _, _, found = explained()
    write = Path.write_text

    def fail(path, text, **options):
        if path.name == "query_00003.js":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        write_explanation(tmp_path / "v", found.explanation, range(7))
    assert not list(tmp_path.iterdir())


def test_what_is_kept_is_known(explained, tmp_path):
    _, _, _, found = explained()
    kept, report = tmp_path / "v", tmp_path / "report"
    assert not is_kept(kept)
    write_explanation(kept, found.explanation, range(7))
    assert is_kept(kept)
    report.mkdir()
    assert link_explanation(report, kept) == [0, 2, 4]
    assert {path.name for path in (report / "attention").iterdir()} == {path.name for path in kept.iterdir()} - {ABOUT}
    about = json.loads((kept / ABOUT).read_text())
    (kept / ABOUT).write_text(json.dumps(about | {"version": 0}))
    assert not is_kept(kept)
    for damaged in ("[", '{"version": 2}', '{"version": 2, "key_frames": 3, "frames": []}'):
        (kept / ABOUT).write_text(damaged)
        with pytest.raises(UserError, match="about.json: .*--explore again"):
            link_explanation(report, kept)
    (kept / ABOUT).write_text(json.dumps(about))
    (kept / "query_00004.js").unlink()
    assert not is_kept(kept)
    with pytest.raises(UserError, match="v: .*remove this folder"):
        link_explanation(report, kept)
