"""Small text files that appear whole or not at all."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` aside and rename it to `path`; after a failure (disk full) `path` is as it was.

    Raises:
        OSError: It could not be written.
    """
    aside = path.with_name(f'.{path.name}.tmp')
    try:
        aside.write_text(text, encoding='utf-8')
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
