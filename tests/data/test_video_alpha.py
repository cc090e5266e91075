"""Videos with alpha are composited over white."""

import av
import numpy as np
import pytest
from PIL import Image

from data.videos import VideoFile
from tests.data.video_files import SIZE, has_encoder


def clear_frames(count=3):
    """Frames (H, W, 4) uint8 with red hidden under a clear right half."""
    frame = np.full((*SIZE, 4), (200, 40, 60, 255), np.uint8)
    frame[:, SIZE[1] // 2 :, 3] = 0
    return [frame.copy() for _ in range(count)]


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "mov", "mkv"])
def test_alpha_is_composited_over_white_with_one_note(ending, tmp_path, capsys):
    path, frames = tmp_path / f"clip.{ending}", clear_frames()
    if ending in ("mov", "mkv"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream({"mov": "qtrle", "mkv": "ffv1"}[ending], rate=10)
            stream.pix_fmt = {"mov": "argb", "mkv": "yuva420p"}[ending]
            stream.height, stream.width = SIZE
            for frame in frames:
                frame = av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format=stream.pix_fmt)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    else:
        for index, frame in enumerate(frames):
            frame[: index + 1, 0, :3] = 0  # equal frames would be one
        first, *rest = map(Image.fromarray, frames)
        options = {"disposal": 2} if ending == "gif" else {"lossless": True, "exact": True} if ending == "webp" else {}
        first.save(path, save_all=True, append_images=rest, duration=100, **options)
    video = VideoFile("clip", path)
    for _ in range(2):
        for frame in video.read():
            np.testing.assert_allclose(frame[:, 40, 20].numpy(), (200, 40, 60), atol=4)
            assert (frame[:, :, SIZE[1] // 2 + 2 :] == 255).all()
    assert dict(video.conversions) == {"alpha; composited over white": 3}
    assert capsys.readouterr().err.splitlines() == ["note: video clip: alpha; composited over white"]


def test_alpha_that_is_not_decoded_is_noted(tmp_path, capsys):
    if not has_encoder("libvpx-vp9"):
        pytest.skip("PyAV was built without libvpx-vp9")
    with av.open(str(tmp_path / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.pix_fmt, (stream.height, stream.width) = "yuva420p", SIZE
        for frame in clear_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="yuva420p")))
        container.mux(stream.encode())
    assert len(list(VideoFile("clip", tmp_path / "clip.webm").read())) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: video clip: alpha ")
