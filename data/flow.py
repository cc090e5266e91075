"""Read optical flow that the user computed, such as RAFT's: a file for each frame but the last of a video."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.errors import UserError, is_out_of_memory
from utils.files import digest_files

SUFFIXES = (".flo", ".npy")
UNKNOWN = 1e9  # pixels; Middlebury's format marks unknown flow by larger values. It is read as no motion
HEADER = 12  # bytes of a .flo file before its vectors


class FlowFiles:
    """Optical flow of one video, from each frame but the last to the next one.

    Args:
        folder: holds <frame>.flo (Middlebury's format) or <frame>.npy for each frame but the last.
        frame_names: names of the video's frames, in order.

    Raises:
        UserError: a file is missing.
    """

    def __init__(self, folder: Path, frame_names: list[str]):
        self.paths = [_find_file(folder, name) for name in frame_names[:-1]]

    def digest(self) -> str:
        """Return a text that changes with the content of the files."""
        return digest_files(self.paths)

    def read(self) -> Iterator[np.ndarray]:
        """Yield the flows in order: (H, W, 2) float32, in pixels of their own size, x before y.

        Raises:
            UserError: a file cannot be read, or holds no flow.
        """
        return map(_read_flow, self.paths)


def _find_file(folder: Path, name: str) -> Path:
    candidates = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"--flow_path: {candidates[0]} is missing; give .flo or .npy for every frame but the last")


def _read_flow(path: Path) -> np.ndarray:
    flow = _read_npy(path) if path.suffix == ".npy" else _read_flo(path)
    if flow.ndim == 3 and flow.shape[0] == 2 != flow.shape[2]:  # (2, H, W), as RAFT returns it
        flow = flow.transpose(1, 2, 0)
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0 or flow.dtype.kind != "f":
        raise UserError(f"{path}: an array {flow.shape} of {flow.dtype}; a flow is (H, W, 2), floating-point pixels")
    unknown = ~(np.abs(flow) < UNKNOWN).all(-1)  # not finite values, too
    return np.where(unknown[..., None], 0, flow).astype(np.float32)


def _read_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # of many types: NumPy parses the header as Python
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: no array of numbers; write it again with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: holds several arrays (.npz); write one with numpy.save")
    return array


def _read_flo(path: Path) -> np.ndarray:
    """Read Middlebury's format: the letters PIEH, width and height as int32, rows of (x, y) as float32."""
    content = path.read_bytes()
    width, height = np.frombuffer(content[4:HEADER].ljust(8, b"\0"), dtype="<i4").astype(int)
    if content[:4] != b"PIEH" or min(width, height) < 1 or len(content) != HEADER + 8 * width * height:
        raise UserError(f"{path}: no flow in Middlebury's format, or cut short; write it again")
    return np.frombuffer(content, dtype="<f4", offset=HEADER).reshape(height, width, 2)
