"""metrics.jsonl: one JSON object per line with `step` and metrics, appended during the run."""

import json
from pathlib import Path

from ..parallel.collectives import rank
from ..utils.atomic import write_text


class MetricsFile:
    """The metrics of a run by optimizer step. Only rank 0 writes, because metrics are reduced over all ranks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def truncate_after(self, step: int) -> None:
        """Remove the lines after `step`, where a resumed run continues."""
        if rank():
            return
        kept = [row for row in self.rows() if row['step'] <= step]
        write_text(self.path, ''.join(json.dumps(row) + '\n' for row in kept))

    def add(self, step: int, **metrics: float) -> None:
        """Append metrics of one step."""
        if rank():
            return
        with self.path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(dict(step=step, **metrics)) + '\n')

    def rows(self) -> list[dict]:
        """Return the complete lines; a killed run may have left an incomplete one."""
        rows = []
        for line in self.path.read_text(encoding='utf-8').splitlines() if self.path.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows
