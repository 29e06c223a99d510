"""Read the rows of a `Source` section: bundled data sets, local files, folders, globs, hub and ModelScope data sets."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..config.sections import Source
from ..errors import DataError
from .local import BUNDLED, local_files
from .readers import TEXT_UNITS, Rows, inner_suffix, read_file
from .readers.nested import row_cleaner
from .readers.sheets import UNREADABLE, has_values, sheets
from .remote import load_hub, load_modelscope, rows_with_retries
from .unread_files import FilesReadElsewhere, unread_files

MODELSCOPE = 'modelscope:'
ALL_SHEETS = '*'  # not allowed in the name of a sheet


@dataclass(frozen=True)
class Row:
    """One row of a data set; `origin` is its file or hub data set, `number` its line, or its position from 1."""

    origin: str
    number: int
    values: dict

    @property
    def place(self) -> str:
        """Origin and number of the row, for messages."""
        return f'{self.origin}, row {self.number}'


class RowSource:
    """The rows of one `Source`, in a fixed order, and a fingerprint of their content.

    Args:
        source: The section.
        streaming: Read a hub data set during its download, instead of downloading it first.
        elsewhere: Files that other sources of the run read, so that they are not reported as unread.

    Attributes:
        hints: Suspected problems of the rows, set by the checks of the first rows.

    Raises:
        DataError: The path is neither a file, nor a bundled data set, nor a remote data set that can be loaded; or an
            option does not apply to this type of data set.
    """

    def __init__(self, source: Source, streaming: bool = False, elsewhere: FilesReadElsewhere = frozenset()) -> None:
        self.source = source
        self._hub = None
        if source.path.startswith(MODELSCOPE):
            self.files = load_modelscope(source.path.removeprefix(MODELSCOPE), source.split)
        else:
            self.files = local_files(source.path, source.split)
            if not self.files:
                self._hub = load_hub(source, streaming)
        if source.name is not None and self._hub is None:
            raise DataError(
                f'name={source.name!r} is the configuration of a hub data set, but {source.path} is none: remove it'
            )
        if source.sheet is not None and not any(file.suffix.lower() == '.xlsx' for file in self.files):
            raise DataError(f'sheet={source.sheet!r} is for .xlsx files, but {source.path} is none')
        if source.text_unit is not None and not any(inner_suffix(file) in TEXT_UNITS for file in self.files):
            raise DataError(
                f'text_unit={source.text_unit!r} is for {" and ".join(TEXT_UNITS)} files, but {source.path} is none'
            )
        self.hints: list[str] = []
        self._unread_files = unread_files(source.path, self.files, source.sheet, elsewhere)
        self.unread_parts: dict[str, None] = {}  # of files, in the order in which they were noted

    @property
    def unread(self) -> list[str]:
        """Files, sheets, splits and parts of files of the source that are not read, one sentence each.

        Parts of files are known only after the rows have been read.
        """
        return [*self._unread_files, *self.unread_parts]

    def __iter__(self) -> Iterator[Row]:
        return self.rows()

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yield the rows, starting with row `start`, counted from 0."""
        limit = self.source.limit
        return itertools.islice(self._unlimited(start), None if limit is None else max(limit - start, 0))

    def _unlimited(self, start: int) -> Iterator[Row]:
        if self._hub is not None:
            clean = row_cleaner(getattr(self._hub, 'features', None))
            for number, values in enumerate(rows_with_retries(self._hub, start, self.source.path), start + 1):
                yield Row(self.source.path, number, clean(values))
        rows = ((origin, row) for origin, rows in self._tables() for row in rows)
        for origin, (number, values) in itertools.islice(rows, start, None):
            yield Row(origin, number, values)

    def _tables(self) -> Iterator[tuple[str, Rows]]:
        """Yield each file and its rows; with `ALL_SHEETS`, each sheet of a workbook and its rows."""
        sheet, unit, note = self.source.sheet, self.source.text_unit, self.note_unread
        for file in self.files:
            if sheet != ALL_SHEETS or file.suffix.lower() != '.xlsx':
                yield str(file), read_file(file, sheet, unit, note)
                continue
            for title in _filled_sheets(file):
                yield f'{file}, sheet `{title}`', read_file(file, title, unit, note)

    def note_unread(self, sentence: str) -> None:
        """Note a part of a file that is not read."""
        self.unread_parts[sentence] = None

    def head(self, count: int) -> list[Row]:
        """Return the first `count` rows, or fewer if there are fewer.

        Raises:
            DataError: There are none.
        """
        rows = list(itertools.islice(iter(self), count))
        if not rows:
            raise DataError(f'{self.source.path} has no rows')
        return rows

    def identity(self) -> tuple:
        """Return what identifies the source without reading it: options, and names, sizes and times of its files."""
        source = self.source
        files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        return source.path, source.name, source.split, source.sheet, source.text_unit, source.limit, files

    def fingerprint(self) -> str:
        """Return a hash of everything the rows depend on, including the content of the files."""
        digest = hashlib.blake2b(
            repr((self.source.sheet, self.source.text_unit, self.source.limit)).encode(), digest_size=16
        )
        if self._hub is not None:
            digest.update(self._hub._fingerprint.encode())
        for file in self.files:
            digest.update(str(file).encode())  # reports contain it
            with file.open('rb') as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def files_of(sources: Iterable[Source]) -> FilesReadElsewhere:
    """Return the local files that `sources` read, each with the selected sheet; sources with errors are skipped."""
    files = set()
    for source in sources:
        remote = source.path.startswith(MODELSCOPE) or source.path in BUNDLED
        with suppress(DataError):
            files |= {(file, source.sheet) for file in ([] if remote else local_files(source.path, source.split))}
    return frozenset(files)


def _filled_sheets(file: Path) -> list[str | None]:
    try:
        return [sheet.title for sheet in sheets(file) if has_values(file, sheet)] or [None]
    except UNREADABLE:
        return [None]  # the reader reports the error
