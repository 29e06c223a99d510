"""loss.png: the loss curve, drawn at the end of a run."""

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ...parallel.collectives import rank
from ...registry import HOOKS
from ..metrics_file import MetricsFile


@HOOKS.register_module()
class LossCurveHook(Hook):
    """Draws training and validation loss over optimizer steps."""

    priority = 'LOWEST'

    def __init__(self, metrics: MetricsFile, path: Path) -> None:
        self.metrics, self.path = metrics, path

    def after_run(self, runner: Any) -> None:
        rows = [] if rank() else self.metrics.rows()
        if not rows:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for key, label in (('loss', 'training'), ('val_loss', 'validation')):
            points = [(row['step'], row[key]) for row in rows if key in row]
            if points:
                marker = 'o' if key == 'val_loss' or len(points) < 3 else None
                axes.plot(*zip(*points, strict=True), label=label, marker=marker)
        axes.set(xlabel='optimizer step', ylabel='loss per trained token', title=self.path.parent.name)
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(self.path, dpi=120)
