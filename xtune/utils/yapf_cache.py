"""Import yapf, which mmengine needs, in spite of incomplete files in yapf's cache.

yapf creates a cache file before its content is on disk. Processes that start together on a new machine, as with
torchrun, can read an incomplete file and fail. If the disk was full, every later import fails.
"""

import pickle
import time
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# Attempts before incomplete files are removed, and again after it.
TRIES = 10
PAUSE_S = 0.1
# Errors of an import if a file is incomplete, or if another process removes it at the same time.
UNFINISHED = (EOFError, FileNotFoundError, pickle.UnpicklingError)


def import_yapf() -> None:
    """Import yapf if it is installed. Wait one second for incomplete cache files, then remove them.

    Raises:
        EOFError, FileNotFoundError, pickle.UnpicklingError: A file is still incomplete after another second.
        OSError: A file cannot be removed.
    """
    if find_spec('yapf') is None:
        return  # `import xtune` must work without yapf, for `xtune env`
    for attempts_left in reversed(range(2 * TRIES)):
        try:
            import_module('yapf')
            return
        except UNFINISHED:
            if attempts_left == 0:
                raise
        except RuntimeError:  # no home folder for the cache; `cli.main` reports it
            return
        if attempts_left == TRIES:
            _remove_cache()
        time.sleep(PAUSE_S)


def _remove_cache() -> None:
    import platformdirs  # yapf locates its cache with it

    folder = Path(platformdirs.user_cache_dir('YAPF', 'Google', version('yapf')))
    for path in folder.glob('*.pickle'):
        path.unlink(missing_ok=True)
