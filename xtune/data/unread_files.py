"""Find files and sheets that belong to a source but are not read, and describe them in sentences for the report."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .local import files_matching, is_data_file, is_hidden, split_in_name
from .readers import inner_suffix
from .readers.sheets import UNREADABLE, has_values, sheets
from .saved_to_disk import saved_splits

# Files about a data set, by the start or end of their names.
_DOCUMENTATION = ('readme', 'license', 'licence', 'notice', 'citation', 'changelog', 'copying', 'requirements')
_AUXILIARY = ('.cff', '.bib', '.lock', '.py', '.sh')  # citations, a loading script
# Pairs (file, sheet or None) that other sources of the run read.
FilesReadElsewhere = frozenset


def unread_files(path: str, files: list[Path], sheet: str | None, elsewhere: FilesReadElsewhere) -> list[str]:
    """Return one sentence for each split, file type and sheet at `path` that is not read.

    Hidden files, files about the data set such as README.md, and files that other sources read are not reported.

    Args:
        path: The path of the source.
        files: The files that are read.
        sheet: The sheet that is selected; other sheets are then not expected to be read.
        elsewhere: Files that other sources read.
    """
    sentences = []
    folder = Path(path).expanduser()
    read = {*files, *(file for file, _ in elsewhere)}
    if folder.is_dir():
        sentences += _in_folder(folder, read)
    elif not folder.is_file() and any(sign in path for sign in '*?['):
        unread = [file for file in files_matching(folder) if file not in read and not _is_auxiliary(file)]
        sentences += _by_type((file, file) for file in unread)
    if sheet is None:
        sentences += _sheets(files, elsewhere)
    return sentences


def _in_folder(folder: Path, read: set[Path]) -> list[str]:
    by_split, others = defaultdict(list), []
    is_saved_dict = saved_splits(folder) is not None
    for file in sorted(folder.rglob('*')):
        inside = file.relative_to(folder)
        if file in read or is_hidden(inside) or _is_auxiliary(file) or not file.is_file():
            continue
        if is_data_file(file):
            by_split[inside.parts[0] if is_saved_dict else split_in_name(inside) or 'train'].append(inside)
        else:
            others.append((file, inside))
    splits = [
        f'split `{name}`: {_file_list(paths)}; train_dataset.split or val_dataset reads it'
        for name, paths in by_split.items()
    ]
    return splits + _by_type(others)


def _by_type(files: Iterable[tuple[Path, Path]]) -> list[str]:
    """Return one sentence for each type of file; `files` are pairs (file, path to show)."""
    by_type = defaultdict(list)
    for file, shown in files:
        by_type[inner_suffix(file) or file.name].append(shown)
    hint = {'.md': '; a path or glob that ends in .md reads them'}
    return [f'files of type `{name}`: {_file_list(paths)}{hint.get(name, "")}' for name, paths in by_type.items()]


def _is_auxiliary(file: Path) -> bool:
    name = file.name.lower()
    is_datasets_metadata = not is_data_file(file) and file.suffix in ('.json', '.arrow')
    is_documentation = name.startswith(_DOCUMENTATION) and not is_data_file(file)
    return is_documentation or name.endswith(_AUXILIARY) or is_datasets_metadata


def _sheets(files: list[Path], elsewhere: FilesReadElsewhere) -> list[str]:
    unread = defaultdict(list)
    for file in files:
        if file.suffix.lower() == '.xlsx':
            try:
                for sheet in sheets(file)[1:]:
                    if elsewhere.isdisjoint([(file, sheet.title), (file, '*')]) and has_values(file, sheet):
                        unread[sheet.title].append(file)
            except UNREADABLE:  # the reader reports the error
                continue
    return [
        f"sheet `{title}` of {_file_list(paths)}; train_dataset.sheet='*' reads all sheets"
        for title, paths in unread.items()
    ]


def _file_list(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return names[0] if len(names) == 1 else f'{len(names):,} files, such as {names[0]}'
