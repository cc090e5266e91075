"""Record a training run while it goes on: log, monitor, checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from utils import distributed
from utils.errors import UserError
from utils.progress import StageProgress, StepBar, log_line
from utils.run.logs import RunLog, RunningMeans, ThroughputMeter, make_profiler, read_log
from utils.run.provenance import describe_origin
from utils.run.resume import LAST, log_data_changes


@dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """Where and how often a run is recorded. Fields are named as the flags are.

    output_path: folder of the run. num_train_steps: steps of the whole run.
    log_freq, eval_freq: steps between lines of the log, and between measurements of the monitor (0: never).
    save_freq, last_freq: steps between checkpoints that are kept, and between checkpoints that replace `last.pt`.
    profile: whether to write a trace of steps 3 to 5.
    """

    output_path: str
    num_train_steps: int
    log_freq: int
    eval_freq: int
    save_freq: int
    last_freq: int
    profile: bool


class Monitor(Protocol):
    """The interface of `model.training.monitor.Monitor`."""

    def measure(self, network: nn.Module, *, progress: StageProgress) -> dict[str, float]: ...

    def draw(self, network: nn.Module) -> dict[str, np.ndarray]: ...

    def tau_auto(self, network: nn.Module) -> float: ...


YARDSTICK = "python -m tests.benchmarks.yardstick --blocks FILE"
# Validates the trained block: returns values to log and a sentence about them; None if asked to stop.
Validation = Callable[[StageProgress], tuple[dict[str, float], str] | None]


class RunRecorder:
    """Write the log, the monitor's measurements and the checkpoints of a run.

    Every process makes one and calls each method at the same steps, because times are averaged over processes; the
    main process alone writes files.

    Args:
        step: steps done before; 0 for a new run.
        resumed: content of the checkpoint that the run continues from.
        origin: plain values that say where the run came from, see `log_data_changes`.
        monitor: measures masks on fixed clips; None in all processes but the main one, and if it is turned off.
        validation: called after the last step; None as `monitor`, and where no validation videos are known.
        hyperparameters: flags of the run, by name, that TensorBoard shows.
        bar: shows what the monitor does.
        save: writes a checkpoint, given the step, `origin` and `keep`.

    Attributes:
        means, meter: receive the losses, and the clips and waiting times, of every step.
    """

    def __init__(
        self, settings: RecordSettings, network: nn.Module, *, step: int, resumed: dict | None, origin: dict[str, Any],
        monitor: Monitor | None, validation: Validation | None, hyperparameters: dict[str, Any], bar: StepBar,
        save: Callable[..., None],
    ):  # fmt: skip
        self.settings, self.network, self.monitor, self.bar = settings, network, monitor, bar
        self.validation, self.conclusion = validation, ""
        self._save, self.output = save, Path(settings.output_path)
        self.means = RunningMeans((resumed or {}).get("sums"))
        self.meter = ThroughputMeter(next(network.parameters()).device)
        if resumed:
            log_data_changes(resumed, origin)
        self.log = self.profiler = None
        if not distributed.is_main():
            return
        self.origin = origin | describe_origin()
        self.log = RunLog(self.output, step=step, hyperparameters=hyperparameters)
        if monitor and step == 0:
            self.log.write(0, self._measure(0))
        if settings.profile:
            self.profiler = make_profiler(self.output / "profile")
            self.profiler.start()

    def after_step(self, step: int, values: dict[str, float], *, asked: int) -> dict[str, float]:
        """Log, measure and save where step `step` is due for it; return the values that were logged.

        Args:
            values: logged beside `means` and `meter`.
            asked: exit code of a run that was asked to stop, so that this step is its last; 0 otherwise.
        """
        if self.profiler:
            self.profiler.step()
        settings, last = self.settings, step == self.settings.num_train_steps
        measure, scalars = settings.eval_freq > 0 and (step % settings.eval_freq == 0 or last), {}
        if step % settings.log_freq == 0 or last:
            scalars = values | self.means.read() | self.meter.read()
        if asked and measure:
            self.save(step)  # first, because a run that is asked to stop may be killed while the monitor measures
        if measure and self.monitor:
            scalars |= self._measure(step)
        if self.log and scalars:
            self.log.write(step, scalars)
        keep = step % settings.save_freq == 0 or last
        if keep or asked or step % settings.last_freq == 0:
            self.save(step, keep=keep)
        return scalars

    def _measure(self, step: int) -> dict[str, float]:
        """Let the monitor measure, and draw for TensorBoard; the time is not that of steps."""
        with self.meter.pause(), self.bar.pause("monitor") as progress:
            found = self.monitor.measure(self.network, progress=progress)
            self.log.write_pictures(step, self.monitor.draw(self.network))
        return found

    def validate(self, step: int) -> None:
        """Validate the block, where that is asked for, and log what was found.

        The checkpoint is written before, so an error leaves a note and the run is done all the same.
        """
        if not self.validation:
            return
        try:
            with self.bar.pause("validation") as progress:
                found = self.validation(progress)
        except (UserError, OSError) as error:
            self.conclusion = f"not validated: {error}"
        else:
            values, self.conclusion = found or ({}, f"validation was stopped; {YARDSTICK} measures the block")
            if values:
                self.log.write(step, values)

    def save(self, step: int, *, keep: bool = False) -> None:
        """Write a checkpoint as `last.pt`, and with `keep` as a file that later ones do not replace."""
        if self.log:
            known: dict[str, Any] = {"sums": self.means.sums}
            if self.monitor:
                known["tau_auto"] = self.monitor.tau_auto(self.network)
            self._save(step, origin=self.origin | known, keep=keep)

    def close(self, step: int, *, asked: int) -> int:
        """Close the log, say how the run ended after `step`, and return its exit code: `asked` if stopped early."""
        how, code = "done", 0
        if step < self.settings.num_train_steps:
            how, code = f"asked to stop after step {step}; go on with --resume_path auto", asked
        if self.profiler:
            self.profiler.stop()
        if self.log:
            self.log.close()
        log_line(f"{how}: {self.output / LAST}")
        if self.monitor and not code:
            changes = [self._describe_monitor(), self.conclusion or "docs/evaluation.md tells how to measure masks"]
            log_line("; ".join(filter(None, changes)))
        return code

    def _describe_monitor(self) -> str:
        """Say what the monitor measured first and last; nothing if the run was resumed in another folder."""
        names = ("mirror_agreement", "clusters_per_clip")
        measured = [record for record in read_log(self.log.path) if all(name in record for name in names)]
        if not measured or measured[0]["step"] > 0:
            return ""
        (agreement, clusters), (agreement_now, clusters_now) = (
            [record[name] for name in names] for record in (measured[0], measured[-1])
        )
        return (
            f"training changed the agreement with mirror images from {agreement:.2f} to {agreement_now:.2f}, the "
            f"clusters a clip from {clusters:.1f} to {clusters_now:.1f}"
        )
