"""Resolve the `path` of a source to local files: a bundled data set, a file, a folder or a glob."""

import glob
import itertools
import re
from pathlib import Path

from ..errors import DataError, did_you_mean
from .readers import READERS, reader_suffix
from .saved_to_disk import saved_files

BUNDLED = {'self_cognition': Path(__file__).parent / 'files' / 'self_cognition.jsonl'}
# Metadata files of the package `datasets` and of the hub.
_METADATA = ('dataset_info.json', 'dataset_infos.json', 'state.json', 'dataset_dict.json')
# Words in file and folder names that name a split, and the split they mean.
_SPLITS = dict(train='train', test='test', validation='validation', valid='validation', val='validation')
_SPLITS |= dict(dev='validation', eval='validation')


def local_files(path: str, split: str = 'train') -> list[Path]:
    """Return the local files of `path`, sorted; an empty list if it can only be a hub data set.

    In a folder whose file names contain splits (`train-00000.parquet`, `test/part.jsonl`), only files of `split` are
    selected; in a folder written by `save_to_disk` of the package `datasets`, those listed there. A single file and the
    matches of a glob are all selected, unless `split` is not 'train'.

    Raises:
        DataError: `path` looks like a local path, but has no readable file.
    """
    if not path.strip():
        raise DataError('a data set has an empty path; name a file, a folder, a glob or a hub data set')
    if path in BUNDLED and not Path(path).exists():
        return [BUNDLED[path]]
    local = Path(path).expanduser()
    if local.is_dir():
        saved = saved_files(local, split)
        return files_of_split(_files_in(local, path), split, local) if saved is None else saved
    if local.is_file():
        if reader_suffix(local) is None:
            raise DataError(
                f'{path}: files of type `{"".join(local.suffixes[-2:])}` are not supported; supported: '
                f'{", ".join(READERS)}; text formats also with .gz'
            )
        return [local] if split == 'train' else files_of_split([local], split, local.parent)
    if any(sign in path for sign in '*?['):
        readable = (p for p in files_matching(local) if reader_suffix(p) is not None)
        files = [p for p in readable if is_data_file(p) or p.suffix == local.suffix]
        if not files:
            raise DataError(f'no file matches {path}')
        fixed = itertools.takewhile(lambda part: not set(part) & set('*?['), local.parts)
        return files if split == 'train' else files_of_split(files, split, Path(*fixed))
    if _looks_local(path):
        names = [p.name for p in local.parent.iterdir()] if local.parent.is_dir() else []
        hint = did_you_mean(local.name, names) or f' (looked in {local.parent.resolve()})'
        raise DataError(f'data file {path} does not exist{hint}')
    return []


def files_matching(pattern: Path) -> list[Path]:
    """Return the files that match a glob, sorted."""
    return sorted(p for p in map(Path, glob.glob(str(pattern), recursive=True)) if p.is_file())


def _files_in(folder: Path, path: str) -> list[Path]:
    visible = sorted(p for p in folder.rglob('*') if not is_hidden(p.relative_to(folder)) and p.is_file())
    files = [p for p in visible if is_data_file(p)]
    if not files:
        texts = [p.name for p in visible if p.suffix.lower() == '.md']
        hint = f'; to read {texts[0]} and the like, set the path to {path}/**/*.md' if texts else ''
        raise DataError(f'the folder {path} has no {", ".join(s for s in READERS if s != ".md")} file{hint}')
    return files


def files_of_split(files: list[Path], split: str, folder: Path) -> list[Path]:
    """Return the `files` of `split`, by their names below `folder`, or by `folder` if no file name contains a split.

    Raises:
        DataError: There are none.
    """
    named = {file: split_in_name(file.relative_to(folder)) for file in files}
    wanted = _SPLITS.get(split, split)
    if not any(named.values()) and wanted in ('train', split_in_name(folder)):
        return files
    # Next to files of other splits, a file whose name contains no split is training data.
    chosen = [file for file in files if (named[file] or 'train') == wanted]
    if not chosen:
        known = ', '.join(sorted({name or 'train' for name in named.values()}))
        place = files[0] if len(files) == 1 else folder
        raise DataError(f'{place} has no files of split `{split}`; the file names contain: {known}')
    return chosen


def split_in_name(path: Path) -> str | None:
    """Return the split named by `path`; the last part with a split decides."""
    for part in reversed(path.parts):
        for word in re.split(r'[^a-z]+', part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return None


def is_data_file(path: Path) -> bool:
    """Tell whether a file of a folder is read: not Markdown, and not metadata or a cache of `datasets`."""
    if path.name.startswith('cache-') and path.suffix == '.arrow':
        return False
    return reader_suffix(path) not in (None, '.md') and path.name not in _METADATA


def is_hidden(path: Path) -> bool:
    """Tell whether a part of a relative path begins with a dot."""
    return any(part.startswith('.') for part in path.parts)


def _looks_local(path: str) -> bool:
    return path.startswith(('.', '/', '~')) or reader_suffix(Path(path)) is not None or path.count('/') > 1
