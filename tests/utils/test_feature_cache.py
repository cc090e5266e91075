"""Features of frames kept between runs: one entry a frame, found again by its key, never stale."""

import pytest
import torch

from utils.errors import UserError
from utils.feature_cache import FeatureCache


def test_an_entry_is_found_by_its_frame_and_settings_alone(tmp_path):
    frame = torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8)
    features = torch.randn(5, 2)
    cache = FeatureCache(tmp_path, settings={"name": "a", "with_cls": True})
    assert cache.load(cache.key(frame)) is None
    cache.save(cache.key(frame), features)
    same = FeatureCache(tmp_path, settings={"with_cls": True, "name": "a"})  # in whatever order
    assert torch.equal(same.load(same.key(frame.clone())), features)
    assert (cache.hits, same.hits) == (0, 1)
    others = [(same, frame.flip(-1)), (same, frame.float()), (same, frame.reshape(3, 6, 4))]
    others.append((FeatureCache(tmp_path, settings={"name": "a", "with_cls": False}), frame))
    for other, its_frame in others:
        assert other.load(other.key(its_frame)) is None
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{cache.key(frame)}.npy"]


def test_what_is_no_entry_is_named(tmp_path):
    cache = FeatureCache(tmp_path, settings={})
    key = cache.key(torch.zeros(3, 4, 6))
    cache.save(key, torch.zeros(2, 3, 4))
    with pytest.raises(UserError, match=f"{key}.npy: .*delete it"):
        cache.load(key)
    cache.path(key).write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=f"{key}.npy: .*delete it"):
        cache.load(key)


def test_a_folder_that_cannot_be_made_is_named_with_its_flag(tmp_path):
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file", settings={})
    with pytest.raises(UserError, match="--feature_cache .*file: .*name another folder"):
        cache.save(cache.key(torch.zeros(3, 4, 6)), torch.zeros(2, 3))
