"""The folder a conversion writes: it appears whole, or not at all, and never replaces something."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..engine.files import folder_aside
from ..errors import ConfigError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into that becomes `target` if the block succeeds.

    Raises:
        ConfigError: `target` exists and is not empty.
        CheckpointError: The disk is full or refuses.
    """
    target = target.expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f'{target} exists and is not empty; name another folder or remove it')
    with folder_aside(target) as folder:
        yield folder
