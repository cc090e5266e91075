"""A small video file for the tests of data."""

import pytest

from tests.data.video_files import encode, pictures


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """An .mp4 of 20 frames, each fifth a key frame, with its index in front."""
    return encode(tmp_path_factory.mktemp("video") / "whole.mp4", pictures())
