"""The cache folder, for files that can be recomputed."""

import os
from pathlib import Path
from tempfile import TemporaryFile

from ..errors import ConfigError


def cache_root() -> Path:
    """Return $XTUNE_CACHE, else ~/.cache/xtune."""
    return Path(os.environ.get('XTUNE_CACHE') or Path.home() / '.cache' / 'xtune')


def cache_folder(name: str) -> Path:
    """Create the folder `name` in the cache if needed, and return it; it is writable.

    Raises:
        ConfigError: The folder cannot be created or is not writable.
    """
    folder = cache_root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f'the cache folder {folder} is not writable ({error.strerror}); '
            'set the environment variable XTUNE_CACHE to another folder'
        ) from error
    return folder
