"""The output folder of a conversion: it is created atomically and never replaces anything."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import ConfigError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a staging folder that becomes `target` if the block succeeds, and is removed otherwise.

    Raises:
        ConfigError: `target` exists and is not empty, or cannot be written.
    """
    target = target.expanduser().resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f'{target} exists and is not empty; choose another folder or remove it')
    except OSError as error:
        raise _write_error(target, error) from error
    staging = target.with_name(f'.{target.name}.tmp')
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        yield staging
        os.replace(staging, target)
    except SafetensorError as error:  # raised for a full disk; damaged input files are refused when they are read
        raise _write_error(target, error) from error
    except OSError as error:
        if error.filename is not None and target.parent not in Path(str(error.filename)).parents:
            raise  # about another file
        raise _write_error(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_error(target: Path, error: Exception) -> ConfigError:
    problem = getattr(error, 'strerror', None) or str(error).splitlines()[0]
    parent = next((folder for folder in target.parents if folder.is_dir()), Path('/'))
    free = shutil.disk_usage(parent).free / 2**20
    return ConfigError(
        f'{target} could not be written: {problem} ({free:,.0f} MiB free there); the partial output was removed. '
        'Free disk space, or choose another folder.'
    )
