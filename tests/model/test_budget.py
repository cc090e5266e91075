"""The memory budget changes what is kept and for how long, and no label."""

import tempfile
from dataclasses import replace

import pytest
import torch

from model.engine.budget import FLOAT_BYTES, LIMITS, MemoryBudget, SpareMemory, format_gigabytes
from model.engine.threshold import Trial, cluster_at_wanted_number
from model.engine.windows import ENGINES, WindowClusterer
from tests.model.inputs import make_network, make_segmenter, video
from utils.errors import UserError


def bytes_without_spare(network, features, *, num_key_frames, **settings):
    """Bytes that features (T, N, C) on a grid of 3 x 5 and the clustering of one window take."""
    segmenter = make_segmenter(network, memory_gb=1, **settings)
    spare = segmenter.budget.compute_spare(
        features, grid=(3, 5), num_key_frames=num_key_frames, engine=ENGINES["exact"], device=segmenter.device
    )
    return 1e9 - spare.total


def smallest_budget(network, frames, options):
    """Bisect for the smallest --memory_gb that is accepted, to 1 kB."""
    refused = bytes_without_spare(network, (12, 15, 64), num_key_frames=6, **options) / 1e9
    accepted = 2 * refused
    while accepted - refused > 1e-6:
        middle = (accepted + refused) / 2
        try:
            make_segmenter(network, memory_gb=middle, **options).segment(frames, num_frames=len(frames))
            accepted = middle
        except UserError:
            refused = middle
    return accepted


@pytest.mark.parametrize(
    ("directions", "most", "kept"),
    [(1000, 512, [32] * 4), (1000, 25, [25] * 4), (18, 512, [18] * 4), (5, 512, [10, 10, 0, 0])],
)
def test_summaries_are_as_good_as_fits(tiny_weights, monkeypatch, directions, most, kept):
    """All directions of the projection, or the most allowed, or what leaves room for all windows, at least 10 here."""
    limits = replace(LIMITS, min_summary_rank=10, max_summary_rank=most)
    monkeypatch.setattr("model.engine.budget.LIMITS", limits)
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    options = {"key_stride": 2, "tau": 1e3}  # one cluster, so that centres take next to nothing
    ample = make_segmenter(network, memory_gb=1, **options)
    features, grid = ample.encode(video(12), num_frames=12)
    needed = bytes_without_spare(network, features.shape, num_key_frames=6, **options)
    ranks, merge = [], WindowClusterer.merge

    def merge_and_record(self):
        merge(self)
        ranks[:] = [summary.x_inside.shape[1] if summary else 0 for summary in self.summaries]

    monkeypatch.setattr(WindowClusterer, "merge", merge_and_record)
    # Half of what is to spare is for summaries of 180 tokens, floats of 4 bytes.
    spare = (2 * directions + 3.5) * 180 * 4 * 2
    make_segmenter(network, memory_gb=(needed + spare) / 1e9, **options).cluster(features, grid)
    assert ranks == kept


@pytest.mark.parametrize("clustering", ["exact", "fast"])
@pytest.mark.parametrize("keep", [18, 1, 0])
def test_less_of_a_summary_gives_the_same_labels(tiny_weights, monkeypatch, keep, clustering):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    segmenter = make_segmenter(network, key_stride=2, tau=0.05, clustering=clustering)
    features, grid = segmenter.encode(video(12), num_frames=12)
    expected = segmenter.cluster(features, grid).labels
    add, attend, attended = WindowClusterer.add_window, WindowClusterer._attend, []
    monkeypatch.setattr(WindowClusterer, "add_window", lambda self, window, **_: add(self, window, summary_rank=keep))
    monkeypatch.setattr(
        WindowClusterer, "_attend", lambda self, tokens: attended.append(len(tokens)) or attend(self, tokens)
    )
    assert (segmenter.cluster(features, grid).labels == expected).all()
    # Some tokens were not proved, and made anew, but where all directions were kept of few columns.
    assert sum(attended) > 180 or (clustering, keep) == ("fast", 18)


def test_memory_budget(tiny_weights, monkeypatch, tmp_path):
    """Summaries that do not fit are made again, features that do not fit go to disk, with the same labels; a budget
    below one window is refused."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    frames = video(12)
    options = {"key_stride": 2, "tau": 0.05}
    expected = make_segmenter(network, memory_gb=1, **options).segment(frames, num_frames=12).labels.tolist()
    needed = smallest_budget(network, frames, options)
    attended = []
    attend = WindowClusterer._attend
    monkeypatch.setattr(WindowClusterer, "_attend", lambda self, x: attended.append(len(x)) or attend(self, x))
    assert make_segmenter(network, memory_gb=1, **options).segment(frames, num_frames=12).labels.tolist() == expected
    assert attended.count(45) == 4  # once a window
    attended.clear()
    tight = make_segmenter(network, memory_gb=needed * 1.01, **options)
    assert tight.segment(frames, num_frames=12).labels.tolist() == expected
    attended.clear()
    with monkeypatch.context() as patch:
        patch.setattr(WindowClusterer, "count_summary_floats", lambda self, rank: 10**9)
        assert tight.segment(frames, num_frames=12).labels.tolist() == expected
    assert attended.count(45) == 8  # and once more
    with pytest.raises(UserError, match="--tau 1e-09: .*--memory_gb"):
        make_segmenter(network, memory_gb=needed, key_stride=2, tau=1e-9).segment(frames, num_frames=12)
    with pytest.raises(UserError, match=r"--memory_gb 0\.0001: .*raise it"):
        make_segmenter(network, key_stride=2, memory_gb=0.0001).segment(frames, num_frames=12)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1.275e11, "128 GB"), (1e10, "10 GB"), (9.95e9, "10 GB"), (1.81e9, "1.9 GB"), (2e9, "2.0 GB"), (5e4, "0.1 GB")],
)
def test_memory_that_is_asked_for_has_a_unit_and_suffices(size, expected):
    assert format_gigabytes(size) == expected


@pytest.mark.parametrize(("room", "merged"), [(2, [3]), (1, [2, 3])])
def test_centres_that_outgrow_the_budget_are_merged_early(tiny_weights, monkeypatch, room, merged):
    """One centre in each of three windows, and room for so many."""
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=3.0)
    windows, merge = [], WindowClusterer.merge
    monkeypatch.setattr(WindowClusterer, "merge", lambda self: windows.append(len(self.summaries)) or merge(self))
    monkeypatch.setattr(
        MemoryBudget,
        "compute_spare",
        lambda *args, num_key_frames, **options: SpareMemory(room * 2 * 5 * FLOAT_BYTES * num_key_frames * 15),
    )
    segmenter = make_segmenter(network, key_stride=4, tau=1e3)
    segmenter.cluster(*segmenter.encode(video(9), num_frames=9))
    assert windows == merged


def test_features_beyond_the_budget_go_to_disk(tiny_weights, monkeypatch, tmp_path):
    network = make_network(tiny_weights)
    opened, spill = [], tmp_path / "not/there/yet"
    temporary_file = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: opened.append(dir) or temporary_file(dir=dir))
    for memory_gb, spilled in ((1e-4, []), (9e-5, [spill])):  # 12 * 15 * 64 * 4 bytes fit half of the former
        segmenter = make_segmenter(network, memory_gb=memory_gb, spill_path=spill)
        features, _ = segmenter.encode(video(12), num_frames=12)
        assert opened == spilled
        torch.testing.assert_close(features, network.encode(torch.stack(video(12))))
    assert not list(spill.iterdir())  # unlinked already: nothing stays behind whatever happens


def test_objects_of_a_very_long_video_have_to_fit(tiny_weights):
    """Its features go to disk, but there has to be room for 115 bytes for each of its tokens."""
    segmenter = make_segmenter(make_network(tiny_weights), memory_gb=1.0, objects={})
    segmenter.budget.check_objects((10**5, 15, 64))
    with pytest.raises(UserError, match=r"--memory_gb 1: .* need 1\.9 GB; raise it, "):
        segmenter.budget.check_objects((10**6, 15, 64))
    frames = (frame for frame in video(2))
    with pytest.raises(UserError, match="--memory_gb 1: .*raise it, "):  # told at the first frames
        segmenter.segment(frames, num_frames=10**6)


@pytest.mark.parametrize("threshold", [2.0, 1e9])
def test_centres_beyond_the_budget_count_as_too_many_clusters(threshold):
    """However few were found until the clustering was given up; the trial returned is the latest."""
    trials = []

    def cluster_at(tau):
        trials.append(Trial(tau, 10, fits=tau > threshold))
        return trials[-1]

    trial = cluster_at_wanted_number(cluster_at, start=0.5, wanted=(4, 30))
    assert trial is trials[-1]
    fits, tau = trial.fits, trial.tau
    assert (fits, tau > threshold, tau == 0.5) == ((True, True, False) if threshold == 2.0 else (False, False, True))
