"""Where things are kept that can be made again."""

import os
from pathlib import Path
from tempfile import TemporaryFile

from ..errors import ConfigError


def cache_root() -> Path:
    """Return $XTUNE_CACHE, else ~/.cache/xtune."""
    return Path(os.environ.get('XTUNE_CACHE') or Path.home() / '.cache' / 'xtune')


def cache_folder(name: str) -> Path:
    """Return the folder `name` in the cache, which is there from now on and can be written to.

    Raises:
        ConfigError: It cannot be made or written to.
    """
    folder = cache_root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f'the cache folder {folder} cannot be written to ({error.strerror}); '
            'name another folder in the environment variable XTUNE_CACHE'
        ) from error
    return folder
