"""From a `Source` section to rows: bundled sets, local files, folders and globs, hub data sets."""

import glob
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config.sections import Source
from ..errors import DataError, did_you_mean
from ..models.quiet import quiet
from .readers import READERS, read_file

BUNDLED = {'self_cognition': Path(__file__).parent / 'files' / 'self_cognition.jsonl'}


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

    Raises:
        DataError: The path is neither a file, nor a bundled set, nor a hub data set that can be loaded.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.files = local_files(source.path)
        self._hub = None if self.files else _load_hub(source)
        if source.sheet is not None and not any(file.suffix.lower() == '.xlsx' for file in self.files):
            raise DataError(f'sheet={source.sheet!r} is for .xlsx files, and {source.path} is none')

    def __iter__(self) -> Iterator[Row]:
        return itertools.islice(self._all(), self.source.limit)

    def _all(self) -> Iterator[Row]:
        if self._hub is not None:
            for number, values in enumerate(self._hub, 1):
                yield Row(self.source.path, number, values)
        for file in self.files:
            for number, values in read_file(file, self.source.sheet):
                yield Row(str(file), number, values)

    def head(self, count: int) -> list[Row]:
        """Return the first rows.

        Raises:
            DataError: There are none.
        """
        rows = list(itertools.islice(iter(self), count))
        if not rows:
            raise DataError(f'{self.source.path} has no rows')
        return rows

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


def local_files(path: str) -> list[Path]:
    """Return the local files `path` means, sorted; an empty list if it can only be a hub data set.

    Raises:
        DataError: `path` looks local, but nothing readable is there.
    """
    if path in BUNDLED and not Path(path).exists():
        return [BUNDLED[path]]
    here = Path(path).expanduser()
    if here.is_dir():
        files = sorted(p for p in here.rglob('*') if p.suffix.lower() in READERS and p.is_file())
        if not files:
            raise DataError(f'the folder {path} holds no {", ".join(READERS)} file')
        return files
    if here.is_file():
        if here.suffix.lower() not in READERS:
            raise DataError(f'{path}: files of type `{here.suffix}` are not read; known: {", ".join(READERS)}')
        return [here]
    if any(sign in path for sign in '*?['):
        files = sorted(Path(p) for p in glob.glob(str(here), recursive=True) if Path(p).suffix.lower() in READERS)
        if not files:
            raise DataError(f'no file matches {path}')
        return files
    if _looks_local(path):
        names = [p.name for p in here.parent.iterdir()] if here.parent.is_dir() else []
        hint = did_you_mean(here.name, names) or f' (looked in {here.parent.resolve()})'
        raise DataError(f'data file {path} does not exist{hint}')
    return []


def _looks_local(path: str) -> bool:
    return path.startswith(('.', '/', '~')) or Path(path).suffix.lower() in READERS or path.count('/') > 1


def _load_hub(source: Source):
    import datasets

    try:
        with quiet():
            return datasets.load_dataset(source.path, source.name, split=source.split)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f'`{source.path}` is no local file, and as a hub data set it cannot be loaded: {first}\n'
            'Without a connection, download it and set train_dataset.path to the files.'
        ) from error
