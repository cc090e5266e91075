"""Log a training run: JSON lines and TensorBoard events, means over steps, throughput, and a profile of some steps."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import distributed
from utils.errors import UserError
from utils.files import write_atomically
from utils.run.events import EventFile, explain_full_disk

PROFILED_STEPS = 3  # after two steps of warm-up


class RunLog:
    """Writes a line per log step to `<folder>/log.jsonl`, and TensorBoard events to `<folder>/tensorboard`.

    Args:
        step: step that the run goes on from; later lines and events are dropped.
        hyperparameters: flags of the run, by name, for TensorBoard.

    Raises:
        UserError: no space or no permission; also by the methods.
    """

    def __init__(self, folder: Path, *, step: int, hyperparameters: dict[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        truncate_log(self.path, step)
        self.events = EventFile(folder / "tensorboard", step=step)
        self.events.add_hyperparameters(hyperparameters)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Write the scalars of a step to both logs."""
        with explain_full_disk(self.path), open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        self.events.add_scalars(step, scalars)

    def write_pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Write pictures (H, W, 3) uint8 RGB of a step for TensorBoard, by name."""
        self.events.add_pictures(step, pictures)

    def close(self) -> None:
        self.events.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the records of a `log.jsonl` up to the first invalid line, such as one cut short by a crash."""
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            break
        records.append(record)
    return records


def truncate_log(path: Path, step: int) -> None:
    """Remove the records after `step`, from which a run is resumed; all of them if `step` is 0."""
    if not path.exists():
        return
    kept = [json.dumps(record) + "\n" for record in read_log(path) if step > 0 and record["step"] <= step]
    if (content := "".join(kept).encode()) != path.read_bytes():  # as bytes: a damaged file may be no text
        with write_atomically(path, durable=True) as temporary:
            temporary.write_bytes(content)


class RunningMeans:
    """Means of values over the steps since the last `read`; values that some steps lack are averaged over the others.

    Args:
        saved: `sums` from the checkpoint of a resumed run, so that means include the steps before it was stopped.
    """

    def __init__(self, saved: Any = None):
        is_valid = isinstance(saved, dict) and all(map(_is_sum, saved.values()))
        self.sums: dict[str, tuple[float, int]] = dict(saved) if is_valid else {}  # name -> (sum, number of steps)

    def add(self, values: dict[str, float]) -> None:
        """Add the values of one step."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def read(self) -> dict[str, float]:
        """Return the means and start anew."""
        found = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return found


def _is_sum(entry: Any) -> bool:
    return isinstance(entry, tuple) and list(map(type, entry)) == [float, int] and entry[1] > 0


class ThroughputMeter:
    """Clips per second and share of time spent waiting for data, over all processes, since the last `read`.

    Time inside the meter as a context manager counts as waiting, time inside `pause` not at all.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self.clips = 0
        self.waited = 0.0
        self.start = time.perf_counter()

    def __enter__(self) -> None:
        self._wait_start = time.perf_counter()

    def __exit__(self, *_) -> None:
        self.waited += time.perf_counter() - self._wait_start

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out the time inside the context, in which no clips are trained on."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.start += time.perf_counter() - began

    def add(self, clips: int) -> None:
        """Count clips that this process has finished."""
        self.clips += clips

    def read(self) -> dict[str, float]:
        """Return the measurements and start anew."""
        elapsed = time.perf_counter() - self.start
        waited = torch.tensor(self.waited, device=self.device)
        distributed.average_in_place([waited])
        clips = self.clips * distributed.world_size()
        self._reset()
        return {"data_wait_share": waited.item() / elapsed, "clips_per_second": clips / elapsed}


def check_profile(first_step: int, last_step: int) -> None:
    """Raise `UserError` if a run is too short for `make_profiler`."""
    if last_step - first_step < (needed := 2 + PROFILED_STEPS):
        raise UserError(f"--profile: looks at steps 3 to {needed}; raise --num_train_steps to {first_step + needed}")


def make_profiler(folder: Path) -> torch.profiler.profile:
    """Make a profiler that traces steps 3 to 5 into `folder`, for ui.perfetto.dev; call its `step` after each."""
    return torch.profiler.profile(
        activities=torch.profiler.supported_activities(),
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=PROFILED_STEPS, repeat=1),
        on_trace_ready=torch.profiler.tensorboard_trace_handler(str(folder)),
        record_shapes=True,
    )
