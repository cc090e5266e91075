"""Draw the log of a training run."""

from pathlib import Path

from utils.errors import UserError
from utils.run.logs import read_log
from utils.visual import save_figure

LOSSES = ("loss_semantic", "loss_motion", "loss_object")  # drawn in one panel
PANELS = ("clusters_per_clip", "mirror_agreement", "attention_entropy", "grad_norm")


def draw_log(log: Path, picture: Path) -> None:
    """Draw the losses of a log over its steps, and each of `PANELS` that it has."""
    from matplotlib.figure import Figure  # slow to import

    if not log.is_file():
        raise UserError(f"--log {log}: no such file; give the log.jsonl in an --output_path of train.py")
    records = read_log(log)
    logged = {name for record in records for name in record}
    panels = [[name for name in names if name in logged] for names in (LOSSES, *((name,) for name in PANELS))]
    panels = [names for names in panels if names]
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    for axis, names in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axis.margins(y=0.2)
        for name in names:
            points = [(record["step"], record[name]) for record in records if name in record]
            axis.plot(
                *zip(*points, strict=True),
                marker="." if len(points) < 20 else "",
                label=name.replace("_", " "),
                linewidth=1,
            )
        axis.set_xlabel("step")
        axis.set_ylim(bottom=0)
        axis.legend()
        axis.grid(alpha=0.3)
    save_figure(figure, picture, dpi=110)
