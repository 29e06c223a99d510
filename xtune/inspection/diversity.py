"""How similar the samples of a split are."""

from dataclasses import dataclass

import numpy as np

from ..data.split import Split
from .statistics import MAX_SAMPLES


@dataclass(frozen=True)
class Diversity:
    """Counts over the first samples of a split.

    Attributes:
        samples: Samples compared.
        rows: Rows that they come from.
        repeated: Share of the samples that are equal to one of another row.
        replies: Number of different trained texts.
    """

    samples: int
    rows: int
    repeated: float
    replies: int


def diversity(split: Split) -> Diversity:
    """Compare the first `MAX_SAMPLES` samples, each once even if it is repeated within an epoch."""
    samples, texts, replies = set(), set(), set()
    for index in np.unique(split.sequences.ranges[:, 0])[:MAX_SAMPLES].tolist():
        ids, place = split.store.ids(index), split.store.place(index)
        text = ids.tobytes()
        samples.add((place, text))  # a stream may read a row again
        texts.add(text)
        replies.add(b''.join(ids[start:stop].tobytes() for start, stop in split.store.spans(index)))
    repeated = 1 - len(texts) / len(samples)
    return Diversity(len(samples), len({place for place, _ in samples}), repeated, len(replies))
