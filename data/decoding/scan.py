"""Find the frames of a video file with the first library that can decode it."""

from pathlib import Path

from tqdm import tqdm

from data.decoding.animations import PillowReader
from data.decoding.base import CannotDecode, Contents, ReportProgress
from data.decoding.opencv import OpenCVReader
from data.decoding.pyav import PyAVReader
from utils.errors import UserError
from utils.file_kinds import identify_foreign, read_start
from utils.progress import shows_bars


def scan(
    path: Path, *, trust_index: bool = False, report_progress: ReportProgress = lambda done, total: None
) -> Contents:
    """Decode a video file to its end with the first library that can.

    Args:
        trust_index: if the file has an index that lists every frame, take the contents from it without decoding. Damage
            is then found when the frames are read.
        report_progress: called with the number of decoded frames, and that in the header or 0.

    Raises:
        UserError: no library can decode a frame of the file, it holds no video, or its frames have several sizes.
    """
    reasons = []
    for reader in (PillowReader(), PyAVReader(), OpenCVReader()):
        try:
            return (reader.read_index(path) if trust_index else None) or reader.scan(path, report_progress)
        except CannotDecode as error:
            reasons += [f"{reader.name}: {error}"] if str(error) else []
    if found := identify_foreign(read_start(path), wanted="video"):
        raise UserError(f"{path}: is {'; '.join(found)}")
    raise UserError(
        f"{path}: no library can decode it ({'; '.join(reasons)}); it is damaged, cut short or no video: copy it "
        f"again, or convert it with ffmpeg -i {path.name} -c:v libx264 converted.mp4"
    )


def scan_with_bar(path: Path, *, trust_index: bool = False) -> Contents:
    """Call `scan` with a progress bar that appears if it takes more than two seconds."""
    bar = tqdm(desc=f"checking {path.name}", unit="frame", delay=2, leave=False, disable=None if shows_bars() else True)

    def update_bar(done: int, total: int) -> None:
        bar.total = total or None
        bar.update(done - bar.n)

    with bar:
        return scan(path, trust_index=trust_index, report_progress=update_bar)
