"""Does a text file hold prose whose lines were broken at some width, so that a line is no document?"""

import itertools
import re

import numpy as np

from .readers import TEXT_UNITS, inner_suffix, read_file
from .sources import RowSource

LOOK = 400  # lines of a file that are not blank
FEWEST = 10  # lines that go on
NARROWEST = 30  # characters; a list of names or queries has shorter lines
_SENTENCE = re.compile(r'[.!?]["\'”’)]*(\s|$)|[。！？]')
_ENDS = '.!?:;。！？：；…"\'”’」』)）]*'  # of a sentence, or of a heading


def hard_wrapped(rows: RowSource) -> list[str]:
    """Return a hint if the lines of a text file of `rows`, each read as a document, look like parts of paragraphs."""
    unit = rows.source.text_unit
    for file in rows.files:
        if inner_suffix(file) in TEXT_UNITS and (unit or TEXT_UNITS[inner_suffix(file)]) == 'line':
            lines = [(number, row['text'].rstrip()) for number, row in itertools.islice(read_file(file), LOOK)]
            if _goes_on(lines):
                return [
                    f'the lines of {file} look like paragraphs that were broken into lines, and each line is trained '
                    "as a document of its own: train_dataset.text_unit='paragraph' or 'file' keeps them together"
                ]
    return []


def _goes_on(lines: list[tuple[int, str]]) -> bool:
    """Tell whether many lines stop inside a sentence, all at about the same width, and the next one follows at once."""
    stops = [
        len(text)
        for (number, text), (after, _) in itertools.pairwise(lines)
        if after == number + 1 and text and text[-1] not in _ENDS
    ]
    # Headings and lists stop anywhere; a typist or a program at the same width, and sentences end inside lines.
    usual = np.percentile([len(text) for _, text in lines], 90) if lines else 0
    wide = [width for width in stops if width >= max(0.75 * usual, NARROWEST)]
    sentences = sum(bool(_SENTENCE.search(text)) for _, text in lines)
    return (
        len(wide) >= max(FEWEST, 0.2 * len(lines)) and np.ptp(wide) <= 0.4 * max(wide) and 10 * sentences >= len(lines)
    )
