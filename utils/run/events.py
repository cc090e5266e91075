"""Write TensorBoard's files: scalars, pictures, hyperparameters, and how the curves are grouped."""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary as summaries

from utils.errors import UserError

JPEG_QUALITY = 90
# Scalars that a run's hyperparameters are shown beside.
METRICS = (
    "loss", "loss_semantic", "loss_motion", "loss_object", "clusters_per_clip", "mirror_agreement", "tau_auto",
    "clips_per_second",
)  # fmt: skip
# Tab "Custom scalars": group -> chart -> scalars.
LAYOUT = {
    "losses": {
        "losses": ("loss", "loss_semantic", "loss_motion", "loss_object"),
        "entropy of the attention": ("attention_entropy",),
        "gradient norm": ("grad_norm",),
        "learning rate": ("lr",),
    },
    "monitor": {
        "clusters per clip": ("clusters_per_clip", "clusters_per_clip_auto"),
        "agreement with mirror images": ("mirror_agreement", "mirror_agreement_auto"),
        "distances within windows": ("distance_q05", "distance_q16", "distance_q50"),
    },
    "time": {
        "clips per second": ("clips_per_second",),
        "share of time waiting for frames": ("data_wait_share",),
    },
}


class EventFile:
    """An event file of TensorBoard, written at once and not by a thread, so that a full disk is an error of the step.

    Args:
        step: step that the run goes on from; TensorBoard drops later events of earlier files in the folder, and all of
            them if it is 0.

    Raises:
        UserError: the file cannot be written; also by the methods.
    """

    def __init__(self, folder: Path, *, step: int):
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        with explain_full_disk(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "xb")  # noqa: SIM115  open as long as the run
        self._write(Event(file_version="brain.Event:2"))
        first = step + 1 if step else 0  # of this run's events: a new run has some of step 0
        self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))
        charts = {group: {chart: _make_chart(names) for chart, names in rows.items()} for group, rows in LAYOUT.items()}
        self._write(Event(summary=summaries.custom_scalars(charts)))

    def add_scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Add values by name."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def add_pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Add pictures (H, W, 3) uint8 RGB by name, as JPEG."""
        for name, picture in pictures.items():
            height, width = picture.shape[:2]
            code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=code)
            self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def add_hyperparameters(self, values: dict[str, Any]) -> None:
        """Add the flags of the run; the tab "HParams" shows them beside the last values of `METRICS`."""
        plain = {name: _make_plain(value) for name, value in values.items()}
        experiment, start, _ = summaries.hparams(plain, dict.fromkeys(METRICS, 0.0))
        for summary in (experiment, start):
            self._write(Event(summary=summary))

    def close(self) -> None:
        self.file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with explain_full_disk(self.path):
            RecordWriter(self.file).write(event.SerializeToString())
            self.file.flush()


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn the error of a full or read-only disk into one that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free space, and go on with "
                        "--resume_path auto") from error  # fmt: skip


def _make_chart(names: tuple[str, ...]) -> tuple[str, list[str]]:
    return "Multiline", [f"^{re.escape(name)}$" for name in names]


def _make_plain(value: Any) -> int | float | str:
    """Convert a flag's value to what a table of hyperparameters holds."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)  # torch would write True as 1
    return value if is_number else str(value)
