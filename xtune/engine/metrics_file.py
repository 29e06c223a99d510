"""metrics.jsonl: one JSON object a line, `step` and figures, appended as the run goes."""

import json
from pathlib import Path

from ..parallel.collectives import rank
from ..utils.atomic import write_text


class MetricsFile:
    """The figures of a run, in optimizer steps; those of the main process, as the figures are of all together."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def truncate_after(self, step: int) -> None:
        """Drop what was written beyond `step`, where a resumed run goes on."""
        if rank():
            return
        kept = [row for row in self.rows() if row['step'] <= step]
        write_text(self.path, ''.join(json.dumps(row) + '\n' for row in kept))

    def add(self, step: int, **figures: float) -> None:
        """Append figures of one step."""
        if rank():
            return
        with self.path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(dict(step=step, **figures)) + '\n')

    def rows(self) -> list[dict]:
        """Return all lines that are whole; a killed run may have left half a line."""
        rows = []
        for line in self.path.read_text(encoding='utf-8').splitlines() if self.path.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows
