"""Which files and sheets that belong to a source are not read, in sentences for a person."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .local import is_data, is_hidden, matched, told_split
from .readers import inner_suffix
from .readers.sheets import UNREADABLE, has_values, sheets
from .saved import saved_splits

# Files about a data set, by the start of their names.
_ABOUT = ('readme', 'license', 'licence', 'notice', 'citation', 'changelog', 'copying', 'requirements')
_ALSO_ABOUT = ('.cff', '.bib', '.lock', '.py', '.sh')  # a card, a loading script
Elsewhere = frozenset  # of pairs (file, sheet or None) that other sources of the run read


def left_out(path: str, files: list[Path], sheet: str | None, elsewhere: Elsewhere) -> list[str]:
    """Return one sentence for each split, type of file and sheet that is not read though it lies where `path` says.

    Files about the data set, such as README.md, and hidden ones are no data; what another source of the run reads is
    not left out.

    Args:
        path: The path of the source.
        files: The files that are read.
        sheet: The sheet that is asked for; with one, the others are not meant.
        elsewhere: What other sources read.
    """
    found = []
    folder = Path(path).expanduser()
    read = {*files, *(file for file, _ in elsewhere)}
    if folder.is_dir():
        found += _in_folder(folder, read)
    elif not folder.is_file() and any(sign in path for sign in '*?['):
        found += _of_types((file, file) for file in matched(folder) if file not in read and not _is_about(file))
    if sheet is None:
        found += _sheets(files, elsewhere)
    return found


def _in_folder(folder: Path, read: set[Path]) -> list[str]:
    of_splits, others = defaultdict(list), []
    saved = saved_splits(folder)
    for file in sorted(folder.rglob('*')):
        inside = file.relative_to(folder)
        if file in read or is_hidden(inside) or _is_about(file) or not file.is_file():
            continue
        if is_data(file):
            of_splits[inside.parts[0] if saved is not None else told_split(inside) or 'train'].append(inside)
        else:
            others.append((file, inside))
    splits = [
        f'split `{name}`: {_such(paths)}; train_dataset.split or val_dataset reads it'
        for name, paths in of_splits.items()
    ]
    return splits + _of_types(others)


def _of_types(files: Iterable[tuple[Path, Path]]) -> list[str]:
    of_types = defaultdict(list)
    for file, shown in files:
        of_types[inner_suffix(file) or file.name].append(shown)
    hint = {'.md': '; a path or glob that ends in .md reads them'}
    return [f'files of type `{name}`: {_such(paths)}{hint.get(name, "")}' for name, paths in of_types.items()]


def _is_about(file: Path) -> bool:
    name = file.name.lower()
    kept_by_datasets = not is_data(file) and file.suffix in ('.json', '.arrow')
    return (name.startswith(_ABOUT) and not is_data(file)) or name.endswith(_ALSO_ABOUT) or kept_by_datasets


def _sheets(files: list[Path], elsewhere: Elsewhere) -> list[str]:
    others = defaultdict(list)
    for file in files:
        if file.suffix.lower() == '.xlsx':
            try:
                found = sheets(file)[1:]
                for one in found:
                    if elsewhere.isdisjoint([(file, one.title), (file, '*')]) and has_values(file, one):
                        others[one.title].append(file)
            except UNREADABLE:  # the reader says what is wrong with it
                continue
    return [
        f"sheet `{title}` of {_such(paths)}; train_dataset.sheet='*' reads all sheets"
        for title, paths in others.items()
    ]


def _such(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return names[0] if len(names) == 1 else f'{len(names):,} files, such as {names[0]}'
