"""Remote data sets, of the hub and of ModelScope. Failed connections are retried before they are an error."""

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
# Seconds to wait before each retry.
WAITS = (1.0, 5.0, 20.0)
# Seconds after which no retry starts: the hub's client itself tries for 20 s and more before it fails.
RETRY_LIMIT = 30.0


def load_hub(source: Source, streaming: bool = False) -> Any:
    """Return the hub data set of `source`, as a `datasets.Dataset`, or an `IterableDataset` if `streaming`.

    Raises:
        DataError: It cannot be loaded.
    """
    import datasets

    def load() -> Any:
        with quiet():
            return datasets.load_dataset(source.path, source.name, split=source.split, streaming=streaming)

    try:
        return with_retries(load, source.path, () if datasets.config.HF_HUB_OFFLINE else None)
    except Exception as error:  # `datasets` and its clients share no base class of errors
        raise DataError(
            f'`{source.path}` is not a local file, and cannot be loaded as a hub data set: {_first_line(error)}\n'
            'Without a connection, download it and set train_dataset.path to the files.'
        ) from error


def load_modelscope(name: str, split: str) -> list[Path]:
    """Return the files of a ModelScope data set, downloaded to ModelScope's cache; its scripts are not executed.

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
    except Exception as error:  # the errors of modelscope share no base class
        raise DataError(f'modelscope:{name} cannot be downloaded: {_first_line(error)}') from error
    return local_files(str(folder), split)


def with_retries(load: Callable[[], T], name: str, waits: tuple[float, ...] | None = None) -> T:
    """Return `load()`, retried after `waits` (seconds) if the connection fails, for at most `RETRY_LIMIT` seconds.

    Raises:
        Exception: The error of the last attempt.
    """
    began = time.monotonic()
    for wait in WAITS if waits is None else waits:
        try:
            return load()
        except Exception as error:
            if not is_transient(error) or time.monotonic() - began > RETRY_LIMIT:
                raise
            tqdm.write(f'note: {name}: {_first_line(error)}; retrying in {wait:.0f} s')
            time.sleep(wait)
    return load()


def is_transient(error: BaseException | None) -> bool:
    """Tell whether `error`, or one of its causes, is a connection error that a retry may fix."""
    while error is not None:
        status = getattr(getattr(error, 'response', None), 'status_code', None)
        if status is not None:
            return status >= 500 or status == 429
        names = {base.__name__ for base in type(error).__mro__}
        if isinstance(error, TimeoutError) or names & _TRANSIENT:
            return 'OfflineModeIsEnabled' not in names
        error = error.__cause__ or error.__context__
    return False


# Errors of httpx, requests, aiohttp and urllib3: they share no base class, and none is a direct dependency.
_TRANSIENT = frozenset(
    'ConnectionError NetworkError TimeoutException RemoteProtocolError Timeout ChunkedEncodingError '
    'ClientConnectionError ClientPayloadError ProtocolError'.split()
)


def rows_with_retries(rows: Any, start: int, name: str) -> Iterator[dict]:
    """Yield the rows of a `datasets` data set, starting with row `start`; reconnect at the same row if needed.

    Raises:
        DataError: The connection fails after all retries without a row in between, or a row cannot be read.
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
                raise DataError(f'{name}, row {at + 1} cannot be read: {_first_line(error)}') from error
            if failures == len(WAITS):
                raise DataError(f'{name}: the connection failed after row {at}: {_first_line(error)}') from error
            tqdm.write(f'note: {name}, row {at + 1}: {_first_line(error)}; retrying in {WAITS[failures]:.0f} s')
            time.sleep(WAITS[failures])
            failures += 1


def _first_line(error: BaseException) -> str:
    return next(itertools.chain(filter(None, map(str.strip, str(error).splitlines())), [type(error).__name__]))
