"""Read label PNGs in TFRecord files, as TensorFlow Datasets stores MOVi."""

import hashlib
import io

import numpy as np
from PIL import Image

from data.tfrecord import Record, read_byte_features
from utils.errors import UserError, is_out_of_memory
from utils.scoring.annotations import MAX_OBJECTS


class RecordSegmentations:
    """Read the label PNGs in one record of a TFRecord file, as TensorFlow Datasets stores MOVi.

    Args:
        record: the record of the video.
        frames: names of its frames.
    """

    KEY = "segmentations"

    def __init__(self, record: Record, frames: list[str]):
        self.record = record
        self._positions = {frame: index for index, frame in enumerate(frames)}

    @property
    def frame_names(self) -> list[str]:
        return list(self._positions)

    def read(self, frame: str) -> np.ndarray:
        images = read_byte_features(self.record, RECORD_KEYS)[self.KEY]
        if len(images) != len(self._positions):
            raise UserError(f"{self.record}: {len(images)} segmentations for {len(self._positions)} frames; "
                            "download this file again")  # fmt: skip
        try:
            with Image.open(io.BytesIO(images[self._positions[frame]])) as image:
                labels = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.source(frame)}: not a readable PNG ({error}); download this file again") from error
        if labels.ndim != 2 or labels.max(initial=0) > MAX_OBJECTS:
            raise UserError(f"{self.source(frame)}: not an image of object ids up to {MAX_OBJECTS}; "
                            "give the folder of another data set")  # fmt: skip
        return labels.astype(np.int32)

    def source(self, frame: str) -> str:
        return f"{self.record}, {self.KEY} of frame {frame}"

    def digest(self) -> str:
        """Return a digest of the checksum that the file stores with the record and that `read` verifies."""
        content = f"{self.record.length}:{self.record.checksum}:{len(self._positions)}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


# Features that are always read together, so that frames and segmentations of a record are read from disk once.
RECORD_KEYS = ("video", RecordSegmentations.KEY)
