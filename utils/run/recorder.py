"""What is recorded of a training run while it goes on: its log, looks at fixed clips, checkpoints."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from utils import distributed
from utils.progress import log_line
from utils.run.logs import RunLog, RunningMeans, ThroughputMeter, make_profiler
from utils.run.provenance import describe_origin as origin_of_process
from utils.run.resume import LAST, log_data_changes


class Monitor(Protocol):
    """`model.training.monitor.Watch`, or what does the same."""

    def measure(self, network: nn.Module) -> dict[str, float]: ...

    def tau_auto(self, network: nn.Module) -> float: ...


class RunRecorder:
    """The records of a run from `step` on. Every process has them and calls each method at the same steps, since times
    are of all; the main process alone writes.

    Args:
        args: of train.py.
        resumed: the checkpoint of the run that goes on.
        origin: plain values that tell where the run came from, as `log_data_changes` takes them.
        watch: of the main process; None in the others.
        save: writes a checkpoint, given its step, `origin` and whether to `keep` it.

    Attributes:
        means, meter: to be told of every step: its losses, and its clips and the time waited for them.
    """

    def __init__(
        self, args: argparse.Namespace, network: nn.Module, *, step: int, resumed: dict | None, origin: dict[str, Any],
        watch: Monitor | None, save: Callable[..., None],
    ):  # fmt: skip
        self.args, self.network, self.watch = args, network, watch
        self._save, self.output = save, Path(args.output_path)
        self.means = RunningMeans((resumed or {}).get("sums"))
        self.meter = ThroughputMeter(next(network.parameters()).device)
        if resumed:
            log_data_changes(resumed, origin)
        self.log = self.profiler = None
        if not distributed.is_main():
            return
        self.origin = origin | origin_of_process()
        self.log = RunLog(self.output, step=step)
        if watch and step == 0:
            self.log.write(0, watch.measure(network))
        if args.profile:
            self.profiler = make_profiler(self.output / "profile")
            self.profiler.start()

    def after_step(self, step: int, values: dict[str, float], *, asked: int) -> dict[str, float]:
        """Log, look and save as step `step` asks for. Returns what was logged.

        Args:
            values: to be logged beside `means` and `meter`.
            asked: whether the run is to stop, so that this step is its last.
        """
        if self.profiler:
            self.profiler.step()
        args, last = self.args, step == self.args.num_train_steps
        look, scalars = step % args.eval_freq == 0 or last, {}
        if step % args.log_freq == 0 or last:
            scalars = values | self.means.read() | self.meter.read()
        if asked and look:
            self.save(step)  # a look takes its time, and there may be none
        if look and self.watch:
            scalars |= self.watch.measure(self.network)
        if self.log and scalars:
            self.log.write(step, scalars)
        keep = step % args.save_freq == 0 or last
        if keep or asked or step % args.last_freq == 0:
            self.save(step, keep=keep)
        return scalars

    def save(self, step: int, *, keep: bool = False) -> None:
        if self.log:
            known = {"tau_auto": self.watch.tau_auto(self.network), "sums": self.means.sums}
            self._save(step, origin=self.origin | known, keep=keep)

    def close(self, step: int, *, asked: int) -> int:
        """Say how the run ended after `step`; returns its exit code, `asked` where it is to go on another time."""
        how, code = "done", 0
        if step < self.args.num_train_steps:
            how, code = f"asked to stop after step {step}; go on with --resume_path auto", asked
        if self.profiler:
            self.profiler.stop()
        if self.log:
            self.log.close()
        log_line(f"{how}: {self.output / LAST}")
        return code
