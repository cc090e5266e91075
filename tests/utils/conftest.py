"""A tiny DAVIS with results to score."""

import pytest

from tests.utils.label_folders import moving_squares, write_video
from utils.scoring.annotations import VOID


@pytest.fixture
def scored_davis(tmp_path):
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
