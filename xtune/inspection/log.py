"""`xtune log-dataset`: training sequences as the model sees them, in the terminal or as an HTML page."""

from collections.abc import Iterator
from pathlib import Path

from ..config.wire import Job
from ..data.report import counted
from ..data.split import Split
from ..data.training_data import TrainingData
from ..engine.job_data import build_job_data
from ..engine.summary import data_lines
from ..errors import ConfigError
from .page import write_page
from .row_lengths import RowLengths, lengths_by_source
from .statistics import figure_lines, histogram, sample_lengths
from .terminal import LEGEND, console, histogram_lines, print_sequence, say
from .view import Viewer

ROWS = 3


def log_dataset(
    job: Job, rows: int | None, with_ids: bool = False, html: Path | None = None, val: bool = False
) -> None:
    """Show the first `rows` sequences (default `ROWS`), in the terminal or in the file `html`, then statistics.

    Raises:
        ConfigError: There are no validation data to show, or `html` is a folder.
    """
    if html is not None and html.is_dir():
        raise ConfigError(f'--html {html} is a folder; name a file, such as {html / "data.html"}')
    if val and job.val_sources is None:
        raise ConfigError('--val shows validation data, but the config has none; set val_dataset (such as 0.05)')
    data = build_job_data(job)
    split = data.val if val else data.train
    count = len(split.sequences)
    shown = min(ROWS if rows is None else rows, count)
    if html is None and shown:
        target, viewer = console(), Viewer(split, data.tokenizer)
        for index in range(shown):
            print_sequence(target, viewer.sequence(index), with_ids)
        target.rule()
        target.print(LEGEND)
    lengths = lengths_by_source(job.train_sources, data, job.values.train_on, job.data.streaming)
    say(_statistics(job, data, split, lengths))
    if rows is not None and rows > count:
        shown_data = 'validation data' if val else 'first window' if job.data.streaming else 'training data'
        say([('rows', f'--rows {rows:,}, but there are only {counted(count, "sequence")} ({shown_data})')])
    if html is not None:
        on_page = write_page(html, job, data, split, shown, lengths)
        limited = '' if on_page == shown else f'; more than that (of {shown:,} requested) would be too large to open'
        say([('wrote', f'{html} with {counted(on_page, "sequence")}{limited}')])


def _statistics(
    job: Job, data: TrainingData, split: Split, lengths: list[RowLengths | None]
) -> Iterator[tuple[str, str]]:
    yield from data_lines(job, data)
    for of_source in lengths:
        if of_source and of_source.first_too_long:
            yield 'too long', f'first: {of_source.first_too_long}'
    yield from figure_lines(split, data.max_length)
    yield from histogram_lines(histogram(sample_lengths(split)))
