"""The folder a conversion writes: it appears whole, or not at all, and never replaces something."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import ConfigError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into that becomes `target` if the block succeeds.

    Raises:
        ConfigError: `target` exists and is not empty, or cannot be written; nothing is left behind then.
    """
    target = target.expanduser().resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f'{target} exists and is not empty; name another folder or remove it')
    except OSError as error:
        raise _refused(target, error) from error
    aside = target.with_name(f'.{target.name}.tmp')
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, target)
    except SafetensorError as error:  # its words for a full disk; damaged files are refused where they are read
        raise _refused(target, error) from error
    except OSError as error:
        if error.filename is not None and target.parent not in Path(str(error.filename)).parents:
            raise  # not about what is written
        raise _refused(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refused(target: Path, error: Exception) -> ConfigError:
    why = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    place = next((folder for folder in target.parents if folder.is_dir()), Path('/'))
    free = shutil.disk_usage(place).free / 2**20
    return ConfigError(
        f'{target} could not be written: {why} ({free:,.0f} MiB free there); nothing is left of it. '
        'Make room, or name another folder.'
    )
