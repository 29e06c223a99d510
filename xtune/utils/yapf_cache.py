"""Import yapf, which mmengine needs, past a file of its cache that another process has not finished.

yapf names a file of its cache before the bytes of it are on the disk. Processes that start together on a new machine,
as torchrun starts them, can read half of one and fail; where the disk was full, each import fails from then on.
"""

import pickle
import time
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# Trials before files that nobody finished are removed, and again as many after.
TRIES = 10
PAUSE_S = 0.1
# What an import raises if a file is not finished, or if another process removes it just then.
UNFINISHED = (EOFError, FileNotFoundError, pickle.UnpicklingError)


def import_yapf() -> None:
    """Import yapf, if it is installed; wait a second for files that are being written, then remove them.

    Raises:
        EOFError, FileNotFoundError, pickle.UnpicklingError: A file is still damaged a second after that.
        OSError: It cannot be removed.
    """
    if find_spec('yapf') is None:
        return  # `import xtune` shall work, for `xtune env`
    for left in reversed(range(2 * TRIES)):
        try:
            import_module('yapf')
            return
        except UNFINISHED:
            if left == 0:
                raise
        except RuntimeError:  # there is no home folder to look for a cache in, which `cli.main` says
            return
        if left == TRIES:
            _remove_cache()
        time.sleep(PAUSE_S)


def _remove_cache() -> None:
    import platformdirs  # by which yapf finds its cache

    folder = Path(platformdirs.user_cache_dir('YAPF', 'Google', version('yapf')))
    for path in folder.glob('*.pickle'):
        path.unlink(missing_ok=True)
