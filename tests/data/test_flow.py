"""Optical flow that the user gives: both formats, both orders of axes, and what is wrong with a file."""

import struct

import cv2
import numpy as np
import pytest

from data.flow import FlowFiles
from utils.errors import UserError

FLOW = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)


def test_both_formats_and_both_orders_of_axes_give_the_same_flow(tmp_path):
    cv2.writeOpticalFlow(str(tmp_path / "a.flo"), FLOW)
    np.save(tmp_path / "b.npy", FLOW.astype(np.float64))
    np.save(tmp_path / "c.npy", FLOW.transpose(2, 0, 1))
    for flow in FlowFiles(tmp_path, ["a", "b", "c", "d"]).read():
        np.testing.assert_array_equal(flow, FLOW)


def test_the_last_frame_needs_no_flow_and_another_one_does(tmp_path):
    assert FlowFiles(tmp_path, ["a"]).paths == []
    with pytest.raises(UserError, match=r"--flow_path: .*a\.flo"):
        FlowFiles(tmp_path, ["a", "b"])


def test_the_digest_follows_the_content(tmp_path):
    np.save(tmp_path / "a.npy", FLOW)
    before = FlowFiles(tmp_path, ["a", "b"]).digest()
    np.save(tmp_path / "a.npy", FLOW + 1)
    assert FlowFiles(tmp_path, ["a", "b"]).digest() != before


def test_unknown_flow_is_no_motion(tmp_path):
    flow = FLOW.copy()
    flow[0, 0], flow[1, 1, 0], flow[2, 2] = 1e10, np.nan, -np.inf
    np.save(tmp_path / "a.npy", flow)
    (read,) = FlowFiles(tmp_path, ["a", "b"]).read()
    assert not read[[0, 1, 2], [0, 1, 2]].any()
    np.testing.assert_array_equal(read[3:], FLOW[3:])


def test_several_arrays_are_no_flow(tmp_path):
    np.savez(tmp_path / "a.npz", FLOW, FLOW)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(UserError, match="a.npy: .*write one with numpy.save"):
        list(FlowFiles(tmp_path, ["a", "b"]).read())


@pytest.mark.parametrize(
    "content", [b"", b"PIEH", b"text\n" * 9, FLOW[0], FLOW[..., :1], np.int16(FLOW),
     b"PIEH" + struct.pack("<ii", -1, -1) + b"01234567", b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((     "],
    ids=["empty", "cut short", "text", "two axes", "one channel", "integers", "negative size", "damaged header"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".flo", ".npy"])
def test_a_file_that_holds_no_flow_is_named(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif suffix == ".flo":
        pytest.skip("Middlebury's format holds nothing else")
    else:
        np.save(path, content)
    with pytest.raises(UserError, match=f"a{suffix}"):
        list(FlowFiles(tmp_path, ["a", "b"]).read())
