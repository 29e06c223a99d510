"""`log-dataset` and `check-custom-dataset`: what the model will really see."""

from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.text import Text

from .config.wire import Job
from .data.build import TrainingData, build_data
from .engine.summary import data_lines, show


def log_dataset(job: Job, rows: int) -> None:
    """Print the first `rows` training sequences with trained tokens in colour, then figures."""
    data = build_data(job)
    console = Console(highlight=False, soft_wrap=True)
    for number, sequence in enumerate(data.train.sequences[:rows], 1):
        console.rule(f'sequence {number}: {sum(int(data.train.store.lengths[i]) for i in sequence)} tokens')
        for index in sequence:
            console.print(Text(f'[{data.train.store.place(index)}]', style='dim'))
            console.print(coloured(data, index))
    console.rule()
    console.print('green: trained; plain: context. Without colour, trained text stands between ⟦ and ⟧.')
    show(data_lines(job, data))


def coloured(data: TrainingData, index: int) -> Text:
    """Return one sample as text, its trained spans green and bracketed."""
    text = Text()
    for ids, trained in _pieces(data, index):
        piece = data.tokenizer.decode(ids, skip_special_tokens=False)
        text.append(f'⟦{piece}⟧' if trained else piece, style='green' if trained else '')
    return text


def _pieces(data: TrainingData, index: int) -> Iterator[tuple[np.ndarray, bool]]:
    ids, at = data.train.store.ids(index), 0
    for start, end in data.train.store.spans(index):
        yield ids[at:start], False
        yield ids[start:end], True
        at = end
    yield ids[at:], False


def check_dataset(job: Job) -> None:
    """Print a verdict on the training data in about ten lines.

    Raises:
        DataError, TemplateError, ModelError: The data cannot be trained on as it is.
    """
    data = build_data(job)
    show(data_lines(job, data))
    lengths = np.array([data.train.store.lengths[i] for sequence in data.train.sequences for i in sequence])
    shares = np.percentile(lengths, [50, 95, 100]).astype(int)
    show(iter([('lengths', f'median {shares[0]:,}, 95 % below {shares[1]:,}, longest {shares[2]:,} tokens')]))
    problems = data.report.bad_rows + sum(data.report.notes.values())
    print('verdict    ready to train' + (' (see the skipped or shortened rows above)' if problems else ''))
