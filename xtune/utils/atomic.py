"""Write small text files atomically."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` to a temporary file and rename it to `path`; after a failure (disk full) `path` is unchanged.

    Several processes may write the same file at the same time, as ranks do that compose the same preset.

    Raises:
        OSError: The file could not be written.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_text(text, encoding='utf-8')
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
