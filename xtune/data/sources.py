"""From a `Source` section to rows: bundled sets, local files, folders and globs, hub and ModelScope data sets."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..compat.datasets_private import fingerprint_of
from ..config.sections import Source
from ..errors import DataError
from .left_out import Elsewhere, left_out
from .local import BUNDLED, local_files
from .readers import TEXT_UNITS, Rows, inner_suffix, read_file
from .readers.nested import row_cleaner
from .readers.sheets import UNREADABLE, has_values, sheets
from .remote import load_hub, load_modelscope, patiently

MODELSCOPE = 'modelscope:'
ALL_SHEETS = '*'  # no name of a sheet may hold it


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

    `not_read` names files, sheets, splits and parts of files that belong to the source and are not read, one sentence
    each; what is found while rows are read is added then. `hints` says what seems to be wrong with the rows, as far as
    somebody has looked.

    Args:
        source: The section.
        streaming: Read a hub data set as it is downloaded, instead of downloading it first.
        elsewhere: What other sources of the run read, so that it is not left out.

    Raises:
        DataError: The path is neither a file, nor a bundled set, nor a remote data set that can be loaded; or an option
            for another kind of data set is given.
    """

    def __init__(self, source: Source, streaming: bool = False, elsewhere: Elsewhere = frozenset()) -> None:
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
                f'name={source.name!r} is the configuration of a hub data set, and {source.path} is none: leave it out'
            )
        if source.sheet is not None and not any(file.suffix.lower() == '.xlsx' for file in self.files):
            raise DataError(f'sheet={source.sheet!r} is for .xlsx files, and {source.path} is none')
        if source.text_unit is not None and not any(inner_suffix(file) in TEXT_UNITS for file in self.files):
            raise DataError(
                f'text_unit={source.text_unit!r} is for {" and ".join(TEXT_UNITS)} files, and {source.path} is none'
            )
        self.hints: list[str] = []
        self._outside = left_out(source.path, self.files, source.sheet, elsewhere)
        self.found: dict[str, None] = {}  # inside the files, in the order in which it was found

    @property
    def not_read(self) -> list[str]:
        """What belongs to the source and is not read."""
        return [*self._outside, *self.found]

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
        rows = ((origin, row) for origin, rows in self._tables() for row in rows)
        for origin, (number, values) in itertools.islice(rows, start, None):
            yield Row(origin, number, values)

    def _tables(self) -> Iterator[tuple[str, Rows]]:
        """Yield each file, of a workbook all sheets if they are asked for, and its rows."""
        sheet, unit, note = self.source.sheet, self.source.text_unit, self.found_inside
        for file in self.files:
            if sheet != ALL_SHEETS or file.suffix.lower() != '.xlsx':
                yield str(file), read_file(file, sheet, unit, note)
                continue
            for title in _filled_sheets(file):
                yield f'{file}, sheet `{title}`', read_file(file, title, unit, note)

    def found_inside(self, what: str) -> None:
        """Note a part of a file that is not read."""
        self.found[what] = None

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
        return source.path, source.name, source.split, source.sheet, source.text_unit, source.limit, files

    def fingerprint(self) -> str:
        """Return a hash of everything the rows depend on."""
        digest = hashlib.blake2b(
            repr((self.source.sheet, self.source.text_unit, self.source.limit)).encode(), digest_size=16
        )
        if self._hub is not None:
            digest.update(fingerprint_of(self._hub).encode())
        for file in self.files:
            digest.update(str(file).encode())  # places in reports name it
            with file.open('rb') as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def files_of(sources: Iterable[Source]) -> Elsewhere:
    """Return the files, with the sheet that is asked for, which `sources` read; of those that cannot be read none."""
    found = set()
    for source in sources:
        remote = source.path.startswith(MODELSCOPE) or source.path in BUNDLED
        with suppress(DataError):
            found |= {(file, source.sheet) for file in ([] if remote else local_files(source.path, source.split))}
    return frozenset(found)


def _filled_sheets(file: Path) -> list[str | None]:
    try:
        return [sheet.title for sheet in sheets(file) if has_values(file, sheet)] or [None]
    except UNREADABLE:
        return [None]  # the reader says what is wrong with it
