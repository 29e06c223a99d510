"""From the `path` of a source to local files: a bundled set, a file, a folder, a glob."""

import glob
import itertools
import re
from pathlib import Path

from ..errors import DataError, did_you_mean
from .readers import READERS, reader_suffix
from .saved import saved_files

BUNDLED = {'self_cognition': Path(__file__).parent / 'files' / 'self_cognition.jsonl'}
# What the package `datasets` and the hub write about rows.
_DESCRIPTIONS = ('dataset_info.json', 'dataset_infos.json', 'state.json', 'dataset_dict.json')
# Words that file and folder names tell splits by, and the split they mean.
_SPLITS = dict(train='train', test='test', validation='validation', valid='validation', val='validation')
_SPLITS |= dict(dev='validation', eval='validation')


def local_files(path: str, split: str = 'train') -> list[Path]:
    """Return the local files `path` means, sorted; an empty list if it can only be a hub data set.

    Of a folder whose names tell splits (`train-00000.parquet`, `test/part.jsonl`) only those of `split` are taken, and
    of a folder that `save_to_disk` of the package `datasets` wrote those it names. A file and what a glob matches are
    meant by their names, unless another split than 'train' is asked for.

    Raises:
        DataError: `path` looks local, but nothing readable is there.
    """
    if not path.strip():
        raise DataError('a data set has an empty path; name a file, a folder, a glob or a hub data set')
    if path in BUNDLED and not Path(path).exists():
        return [BUNDLED[path]]
    here = Path(path).expanduser()
    if here.is_dir():
        saved = saved_files(here, split)
        return of_split(_files_in(here, path), split, here) if saved is None else saved
    if here.is_file():
        if reader_suffix(here) is None:
            raise DataError(
                f'{path}: files of type `{"".join(here.suffixes[-2:])}` are not read; known: {", ".join(READERS)}; '
                'text formats also with .gz'
            )
        return [here] if split == 'train' else of_split([here], split, here.parent)
    if any(sign in path for sign in '*?['):
        files = [p for p in matched(here) if reader_suffix(p) is not None and (is_data(p) or p.suffix == here.suffix)]
        if not files:
            raise DataError(f'no file matches {path}')
        fixed = itertools.takewhile(lambda part: not set(part) & set('*?['), here.parts)
        return files if split == 'train' else of_split(files, split, Path(*fixed))
    if _looks_local(path):
        names = [p.name for p in here.parent.iterdir()] if here.parent.is_dir() else []
        hint = did_you_mean(here.name, names) or f' (looked in {here.parent.resolve()})'
        raise DataError(f'data file {path} does not exist{hint}')
    return []


def matched(pattern: Path) -> list[Path]:
    """Return the files that a glob matches, sorted."""
    return sorted(p for p in map(Path, glob.glob(str(pattern), recursive=True)) if p.is_file())


def _files_in(folder: Path, path: str) -> list[Path]:
    there = sorted(p for p in folder.rglob('*') if not is_hidden(p.relative_to(folder)) and p.is_file())
    files = [p for p in there if is_data(p)]
    if not files:
        texts = [p.name for p in there if p.suffix.lower() == '.md']
        hint = f'; for {texts[0]} and the like name them: {path}/**/*.md' if texts else ''
        raise DataError(f'the folder {path} holds no {", ".join(s for s in READERS if s != ".md")} file{hint}')
    return files


def of_split(files: list[Path], split: str, folder: Path) -> list[Path]:
    """Return those of `files` that belong to `split`, by their names below `folder`; if these tell none, by `folder`.

    Raises:
        DataError: There are none.
    """
    told = {file: told_split(file.relative_to(folder)) for file in files}
    wanted = _SPLITS.get(split, split)
    if not any(told.values()) and wanted in ('train', told_split(folder)):
        return files
    # A file whose name tells no split stands beside those of others as training data.
    chosen = [file for file in files if (told[file] or 'train') == wanted]
    if not chosen:
        known = ', '.join(sorted({name or 'train' for name in told.values()}))
        what = files[0] if len(files) == 1 else folder
        raise DataError(f'{what} has no files of split `{split}`; by their names there are: {known}')
    return chosen


def told_split(path: Path) -> str | None:
    """Return the split that the nearest part of `path` names."""
    for part in reversed(path.parts):
        for word in re.split(r'[^a-z]+', part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return None


def is_data(path: Path) -> bool:
    """Tell whether a file of a folder is read: not a document in Markdown, nor what `datasets` keeps beside rows."""
    if path.name.startswith('cache-') and path.suffix == '.arrow':
        return False
    return reader_suffix(path) not in (None, '.md') and path.name not in _DESCRIPTIONS


def is_hidden(path: Path) -> bool:
    """Tell whether a part of a path below a folder begins with a point."""
    return any(part.startswith('.') for part in path.parts)


def _looks_local(path: str) -> bool:
    return path.startswith(('.', '/', '~')) or reader_suffix(Path(path)) is not None or path.count('/') > 1
