"""A run's log: one JSON line per log step beside TensorBoard scalars."""

import json
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from utils import distributed
from utils.checkpoint import write_whole


class RunLog:
    """Appends to `<folder>/log.jsonl` and writes TensorBoard events into `<folder>/tensorboard`."""

    def __init__(self, folder: Path, *, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        cut_log(self.path, step)
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a `log.jsonl`; a last line cut short by a crash is left out."""
    lines = path.read_text().splitlines()
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def cut_log(path: Path, step: int) -> None:
    """Keep what was logged up to `step`, the one a run is resumed from; of a run that starts, nothing."""
    if not path.exists():
        return
    kept = [json.dumps(record) + "\n" for record in read_log(path) if step > 0 and record["step"] <= step]
    if (text := "".join(kept)) != path.read_text():
        write_whole(path, lambda partial: partial.write_text(text))


class Meter:
    """Means over the steps since it was last read and over all processes; clips per second; the share of time waited.

    As a context manager it counts the time inside as waiting for data.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.steps = self.clips = 0
        self.waited = 0.0
        self.start = time.perf_counter()

    def __enter__(self) -> None:
        self._wait_start = time.perf_counter()

    def __exit__(self, *_) -> None:
        self.waited += time.perf_counter() - self._wait_start

    def add(self, scalars: dict[str, float], *, clips: int) -> None:
        for name, value in scalars.items():
            self.sums[name] += value
        self.steps += 1
        self.clips += clips

    def read(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self.start
        names = sorted(self.sums)
        means = torch.tensor([self.sums[name] / self.steps for name in names] + [self.waited / elapsed])
        means = means.to(self.device)
        distributed.average([means])
        scalars = dict(zip([*names, "data_wait_share"], means.tolist(), strict=True))
        scalars["clips_per_second"] = self.clips * distributed.world_size() / elapsed
        self._reset()
        return scalars
