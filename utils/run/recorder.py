"""Record a training run: log, measurements of the monitor on fixed clips, checkpoints."""

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
    """Measures the network on fixed clips; implemented in `model.training.monitor.Monitor`."""

    def measure(self, network: nn.Module) -> dict[str, float]: ...

    def tau_auto(self, network: nn.Module) -> float: ...


class RunRecorder:
    """Writes the log and the checkpoints of a run from `step` on, and measures with the monitor.

    Every process has a recorder and calls each method at the same steps, since throughput is averaged over processes.
    Only the main process writes.

    Args:
        args: options of train.py.
        resumed: the checkpoint that the run is resumed from.
        origin: plain values that describe where the run came from, see `log_data_changes`.
        monitor: in the main process; None in the others.
        save: writes a checkpoint, given the step, `origin` and whether to `keep` it.

    Attributes:
        means: add the losses of every step to it.
        meter: add the clips of every step to it, and wait for data inside it.
    """

    def __init__(
        self, args: argparse.Namespace, network: nn.Module, *, step: int, resumed: dict | None, origin: dict[str, Any],
        monitor: Monitor | None, save: Callable[..., None],
    ):  # fmt: skip
        self.args, self.network, self.monitor = args, network, monitor
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
        if monitor and step == 0:
            self.log.write(0, monitor.measure(network))
        if args.profile:
            self.profiler = make_profiler(self.output / "profile")
            self.profiler.start()

    def after_step(self, step: int, values: dict[str, float], *, asked: int) -> dict[str, float]:
        """Log, measure and save after `step`, if it is time for each; return the values that were logged.

        Args:
            values: logged beside `means` and `meter`.
            asked: not 0 if the run was asked to stop, so that this step is its last.
        """
        if self.profiler:
            self.profiler.step()
        args, last = self.args, step == self.args.num_train_steps
        measures, scalars = step % args.eval_freq == 0 or last, {}
        if step % args.log_freq == 0 or last:
            scalars = values | self.means.read() | self.meter.read()
        if asked and measures:
            self.save(step)  # before measuring, which may take longer than the scheduler waits
        if measures and self.monitor:
            scalars |= self.monitor.measure(self.network)
        if self.log and scalars:
            self.log.write(step, scalars)
        keep = step % args.save_freq == 0 or last
        if keep or asked or step % args.last_freq == 0:
            self.save(step, keep=keep)
        return scalars

    def save(self, step: int, *, keep: bool = False) -> None:
        """Write a checkpoint, from the main process."""
        if self.log:
            known = {"tau_auto": self.monitor.tau_auto(self.network), "sums": self.means.sums}
            self._save(step, origin=self.origin | known, keep=keep)

    def close(self, step: int, *, asked: int) -> int:
        """Close the log and print how the run ended; return its exit code, which is `asked` if it is not finished."""
        how, code = "done", 0
        if step < self.args.num_train_steps:
            how, code = f"asked to stop after step {step}; go on with --resume_path auto", asked
        if self.profiler:
            self.profiler.stop()
        if self.log:
            self.log.close()
        log_line(f"{how}: {self.output / LAST}")
        return code
