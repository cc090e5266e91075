"""Draw the log of a training run."""

from pathlib import Path

from utils.errors import UserError
from utils.run.logs import read_log
from utils.visual import save_figure

PANELS = ("clusters_per_clip", "mirror_agreement", "attention_entropy", "grad_norm")


def draw_log(log: Path, picture: Path) -> None:
    """Draw losses, clusters per clip, agreement with mirrored clips and attention entropy over the steps of a log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not log.is_file():
        raise UserError(f"--log {log}: no such file; give the log.jsonl in an --output_path of train.py")
    records = read_log(log)
    panels = [("loss_semantic", "loss_motion"), *((name,) for name in PANELS)]
    panels = [names for names in panels if any(name in record for record in records for name in names)]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3), constrained_layout=True)
    for axis, names in zip(axes, panels, strict=True):
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
