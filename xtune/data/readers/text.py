"""Rows of text files: one document per line, per paragraph or per file."""

from collections.abc import Iterator
from pathlib import Path

from .opening import MAX_LINE, Rows, fault, lines, open_text

# Default unit of each file type: a Markdown file is one document.
TEXT_UNITS = {'.txt': 'line', '.md': 'file'}


def read_text(path: Path, unit: str = 'line') -> Rows:
    """Yield (first line, `{'text': document}`) for each document that is not blank.

    Args:
        path: The file.
        unit: 'line', 'paragraph' (separated by blank lines) or 'file'. Line breaks inside a document are kept.

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
            yield from _documents(path, numbered, unit == 'paragraph')


def _documents(path: Path, numbered: Iterator[tuple[int, str]], split_at_blank_lines: bool) -> Rows:
    document: list[str] = []
    first, size = 1, 0
    for number, line in numbered:
        if line.isspace() and (split_at_blank_lines or not document):
            if document:
                yield first, {'text': ''.join(document).rstrip('\n')}
            document, size = [], 0
            continue
        first = first if document else number
        document.append(line)
        size += len(line)
        if size > MAX_LINE:
            what = f'the document that starts here is longer than {MAX_LINE:,} characters; use a smaller text_unit'
            raise fault(path, what, f'line {first}')
    if document:
        yield first, {'text': ''.join(document).rstrip()}
