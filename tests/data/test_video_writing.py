"""Videos are written as browsers play them, whole or not at all; by PyAV, or by OpenCV without it."""

from fractions import Fraction

import av
import pytest

from data.decoding.scan import scan
from tests.data.video_files import SIZE, pictures, without_pyav, write_video


@pytest.mark.parametrize("rate", [Fraction(60), Fraction(30000, 1001), Fraction(10)])
def test_videos_are_written_as_browsers_play_them(rate, tmp_path):
    path = write_video(tmp_path / "deep/o.mp4", pictures(6, size=(97, 161)), rate=rate)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        found = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate, stream.frames)
        assert found == ("h264", "yuv420p", rate, 6)
        assert (stream.width, stream.height) == (162, 98)
    assert [path.name for path in path.parent.iterdir()] == ["o.mp4"]


def test_without_pyav_a_webm_is_written(tmp_path, monkeypatch, capfd):
    without_pyav(monkeypatch)
    path = write_video(tmp_path / "o.mp4", pictures(6), rate=Fraction(10))
    assert path == tmp_path / "o.webm"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"note: {path}: VP8")
    contents = scan(path)
    assert (len(contents.positions), contents.rate, contents.size) == (6, 10, SIZE)


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    def frames():
        yield from pictures(3)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_video(tmp_path / "o.mp4", frames(), rate=Fraction(10))
    assert list(tmp_path.iterdir()) == []
