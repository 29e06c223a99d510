"""Detect text files with hard-wrapped prose, in which a line is not a document."""

import itertools
import re

import numpy as np

from .readers import TEXT_UNITS, inner_suffix, read_file
from .sources import RowSource

LINES_CHECKED = 400  # non-blank lines per file
MIN_CONTINUED = 10  # lines that continue on the next line
MIN_WIDTH = 30  # characters; a list of names or queries has shorter lines
_SENTENCE = re.compile(r'[.!?]["\'”’)]*(\s|$)|[。！？]')
_FINAL = '.!?:;。！？：；…"\'”’」』)）]*'  # last characters of a sentence or heading


def hard_wrap_hints(rows: RowSource) -> list[str]:
    """Return a hint if the lines of a text file, each read as one document, look like parts of paragraphs."""
    unit = rows.source.text_unit
    for file in rows.files:
        if inner_suffix(file) in TEXT_UNITS and (unit or TEXT_UNITS[inner_suffix(file)]) == 'line':
            lines = [(number, row['text'].rstrip()) for number, row in itertools.islice(read_file(file), LINES_CHECKED)]
            if _is_hard_wrapped(lines):
                return [
                    f'{file} looks like hard-wrapped prose, and each line is trained as a separate document: '
                    "train_dataset.text_unit='paragraph' or 'file' keeps paragraphs together"
                ]
    return []


def _is_hard_wrapped(lines: list[tuple[int, str]]) -> bool:
    """Tell whether many lines end inside a sentence, all at a similar width, without a blank line after them."""
    widths = [
        len(text)
        for (number, text), (after, _) in itertools.pairwise(lines)
        if after == number + 1 and text and text[-1] not in _FINAL
    ]
    # Headings and lists end anywhere; wrapped lines end at a similar width, with sentences that end inside lines.
    usual = np.percentile([len(text) for _, text in lines], 90) if lines else 0
    wide = [width for width in widths if width >= max(0.75 * usual, MIN_WIDTH)]
    sentences = sum(bool(_SENTENCE.search(text)) for _, text in lines)
    return (
        len(wide) >= max(MIN_CONTINUED, 0.2 * len(lines))
        and np.ptp(wide) <= 0.4 * max(wide)
        and 10 * sentences >= len(lines)
    )
