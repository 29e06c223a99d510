"""Rows of text files: each line, each paragraph, or the whole file is one document."""

from collections.abc import Iterator
from pathlib import Path

from .opening import MAX_LINE, Rows, fault, lines, open_text

# The usual unit of each type of file: .md marks what belongs together by itself.
TEXT_UNITS = {'.txt': 'line', '.md': 'file'}


def read_text(path: Path, unit: str = 'line') -> Rows:
    """Yield (line on which it starts, `{'text': document}`) for each document that is not blank.

    Args:
        path: The file.
        unit: 'line'; 'paragraph', what stands between blank lines; or 'file'. Line breaks inside a document stay.

    Raises:
        DataError: A document is longer than `MAX_LINE` characters.
    """
    with open_text(path) as file:
        numbered = lines(file, path)
        if unit == 'line':
            for number, line in numbered:
                if not line.isspace():
                    yield number, {'text': line.rstrip('\n')}
        else:
            yield from _joined(path, numbered, unit == 'paragraph')


def _joined(path: Path, numbered: Iterator[tuple[int, str]], blank_ends: bool) -> Rows:
    held: list[str] = []
    first, size = 1, 0
    for number, line in numbered:
        if line.isspace() and (blank_ends or not held):
            if held:
                yield first, {'text': ''.join(held).rstrip('\n')}
            held, size = [], 0
            continue
        first = first if held else number
        held.append(line)
        size += len(line)
        if size > MAX_LINE:
            what = f'the document that starts here is longer than {MAX_LINE:,} characters; take a smaller text_unit'
            raise fault(path, what, f'line {first}')
    if held:
        yield first, {'text': ''.join(held).rstrip()}
