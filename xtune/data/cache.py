"""Where things are kept that can be made again."""

import os
from pathlib import Path


def cache_root() -> Path:
    """Return $XTUNE_CACHE, else ~/.cache/xtune."""
    return Path(os.environ.get('XTUNE_CACHE') or Path.home() / '.cache' / 'xtune')
