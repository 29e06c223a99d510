"""Data sets that are not on this machine. A failing connection is tried again before it is an error."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..config.sections import Source
from ..errors import DataError
from ..utils.quiet import quiet

T = TypeVar('T')
# Seconds to wait before each further attempt.
WAITS = (1.0, 5.0, 20.0)
# Seconds after which no further attempt begins: the hub's client tries for 20 s and more before it fails once.
PATIENCE = 30.0


def load_hub(source: Source, streaming: bool = False) -> Any:
    """Return the `datasets` data set that `source` names; an iterable one with `streaming`.

    Raises:
        DataError: It cannot be loaded.
    """
    import datasets

    def load() -> Any:
        with quiet():
            return datasets.load_dataset(source.path, source.name, split=source.split, streaming=streaming)

    try:
        return with_retries(load, source.path, () if datasets.config.HF_HUB_OFFLINE else None)
    except Exception as error:  # of `datasets` and of its clients, which share no base class
        raise DataError(
            f'`{source.path}` is no local file, and as a hub data set it cannot be loaded: {_first_line(error)}\n'
            'Without a connection, download it and set train_dataset.path to the files.'
        ) from error


def load_modelscope(name: str, split: str) -> list[Path]:
    """Return the files of a ModelScope data set, downloaded to ModelScope's own cache; no script of it is run.

    Raises:
        DataError: The package `modelscope` is missing, or the data set cannot be downloaded or read.
    """
    from .local import local_files

    try:
        from modelscope import dataset_snapshot_download
    except ImportError as error:
        raise DataError(
            f'modelscope:{name} needs the package modelscope: pip install modelscope ({_first_line(error)})'
        ) from error
    try:
        folder = with_retries(lambda: dataset_snapshot_download(name), f'modelscope:{name}')
    except Exception as error:  # its own errors share no base class
        raise DataError(f'modelscope:{name} cannot be downloaded: {_first_line(error)}') from error
    return local_files(str(folder), split)


def with_retries(load: Callable[[], T], what: str, waits: tuple[float, ...] | None = None) -> T:
    """Return `load()`, tried again after `waits` (seconds) while the connection fails, for `PATIENCE` at most.

    Raises:
        Exception: What the last attempt raised.
    """
    began = time.monotonic()
    for wait in WAITS if waits is None else waits:
        try:
            return load()
        except Exception as error:
            if not is_transient(error) or time.monotonic() - began > PATIENCE:
                raise
            tqdm.write(f'note: {what}: {_first_line(error)}; trying again in {wait:.0f} s')
            time.sleep(wait)
    return load()


def is_transient(error: BaseException | None) -> bool:
    """Tell whether `error`, or what it came from, is a connection that may work the next time."""
    while error is not None:
        status = getattr(getattr(error, 'response', None), 'status_code', None)
        if status is not None:
            return status >= 500 or status == 429
        names = {base.__name__ for base in type(error).__mro__}
        if isinstance(error, TimeoutError) or names & _TRANSIENT:
            return 'OfflineModeIsEnabled' not in names
        error = error.__cause__ or error.__context__
    return False


# Of httpx, requests, aiohttp and urllib3: they share no base class, and none of them is a dependency of its own.
_TRANSIENT = frozenset(
    'ConnectionError NetworkError TimeoutException RemoteProtocolError Timeout ChunkedEncodingError '
    'ClientConnectionError ClientPayloadError ProtocolError'.split()
)


def patiently(rows: Any, start: int, what: str) -> Iterator[dict]:
    """Yield the rows of a `datasets` data set from the `start`-th on; a broken connection is opened again where it was.

    Raises:
        DataError: The connection fails again and again without a row between, or a row cannot be read.
    """
    at, failures = start, 0
    while True:
        try:
            for row in rows.skip(at) if at else rows:
                yield row
                at, failures = at + 1, 0
            return
        except Exception as error:
            if not is_transient(error):
                raise DataError(f'{what}, row {at + 1} cannot be read: {_first_line(error)}') from error
            if failures == len(WAITS):
                raise DataError(f'{what}: the connection fails after row {at}: {_first_line(error)}') from error
            tqdm.write(f'note: {what}, row {at + 1}: {_first_line(error)}; trying again in {WAITS[failures]:.0f} s')
            time.sleep(WAITS[failures])
            failures += 1


def _first_line(error: BaseException) -> str:
    return next(itertools.chain(filter(None, map(str.strip, str(error).splitlines())), [type(error).__name__]))
