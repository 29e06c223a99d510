"""From a `Source` section to rows: bundled sets, local files, folders and globs, hub and ModelScope data sets."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ..config.sections import Source
from ..errors import DataError
from .local import local_files
from .readers import read_file
from .readers.nested import row_cleaner
from .remote import load_hub, load_modelscope, patiently

MODELSCOPE = 'modelscope:'


@dataclass(frozen=True)
class Row:
    """One row and where it came from: `number` is a line, or a position from 1."""

    origin: str
    number: int
    values: dict

    @property
    def place(self) -> str:
        """Where a person finds this row."""
        return f'{self.origin}, row {self.number}'


class RowSource:
    """The rows of one `Source`, in a fixed order, and a fingerprint of their content.

    `not_read` names files, sheets and splits that belong to the source and are not read, one sentence each.

    Args:
        source: The section.
        streaming: Read a hub data set as it is downloaded, instead of downloading it first.

    Raises:
        DataError: The path is neither a file, nor a bundled set, nor a remote data set that can be loaded; or an option
            for another kind of data set is given.
    """

    def __init__(self, source: Source, streaming: bool = False) -> None:
        self.source = source
        self.not_read: list[str] = []
        self._hub = None
        if source.path.startswith(MODELSCOPE):
            self.files = load_modelscope(source.path.removeprefix(MODELSCOPE), source.split)
        else:
            self.files = local_files(source.path, source.split)
            if not self.files:
                self._hub = load_hub(source, streaming)
        if source.name is not None and self._hub is None:
            raise DataError(
                f'name={source.name!r} is the configuration of a hub data set, and {source.path} is none: leave it out'
            )
        if source.sheet is not None and not any(file.suffix.lower() == '.xlsx' for file in self.files):
            raise DataError(f'sheet={source.sheet!r} is for .xlsx files, and {source.path} is none')

    def __iter__(self) -> Iterator[Row]:
        return self.rows()

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yield the rows from the `start`-th on."""
        limit = self.source.limit
        return itertools.islice(self._all(start), None if limit is None else max(limit - start, 0))

    def _all(self, start: int) -> Iterator[Row]:
        if self._hub is not None:
            clean = row_cleaner(getattr(self._hub, 'features', None))
            for number, values in enumerate(patiently(self._hub, start, self.source.path), start + 1):
                yield Row(self.source.path, number, clean(values))
        rows = ((str(file), row) for file in self.files for row in read_file(file, self.source.sheet))
        for origin, (number, values) in itertools.islice(rows, start, None):
            yield Row(origin, number, values)

    def head(self, count: int) -> list[Row]:
        """Return the first rows.

        Raises:
            DataError: There are none.
        """
        rows = list(itertools.islice(iter(self), count))
        if not rows:
            raise DataError(f'{self.source.path} has no rows')
        return rows

    def identity(self) -> tuple:
        """Return what tells this source from another without reading it: names, sizes and times of its files."""
        source = self.source
        files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        return source.path, source.name, source.split, source.sheet, source.limit, files

    def fingerprint(self) -> str:
        """Return a hash of everything the rows depend on."""
        digest = hashlib.blake2b(repr((self.source.sheet, self.source.limit)).encode(), digest_size=16)
        if self._hub is not None:
            digest.update(self._hub._fingerprint.encode())
        for file in self.files:
            digest.update(str(file).encode())  # places in reports name it
            with file.open('rb') as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()
