"""`xtune log-dataset`: show training sequences as the model sees them, in the terminal or on an HTML page."""

from collections.abc import Iterator
from pathlib import Path

from ..config.sections import ChatSamples
from ..config.specs import DataSpec, ModelSpec
from ..data.report import counted
from ..data.split import Split
from ..data.training_data import TrainingData
from ..engine.build_run_data import build_run_data
from ..engine.new_token_report import new_token_warning
from ..engine.summary import data_lines
from ..errors import ConfigError
from .page import write_page
from .statistics import figure_lines, histogram, sample_lengths
from .survey import RowLengths, measure_long_sources
from .terminal import LEGEND, console, histogram_lines, print_sequence, say
from .view import Viewer

ROWS = 3


def log_dataset(
    name: str,
    model: ModelSpec,
    spec: DataSpec,
    chat_samples: ChatSamples,
    rows: int | None,
    with_ids: bool = False,
    html: Path | None = None,
    val: bool = False,
) -> None:
    """Show the first `rows` sequences (default `ROWS`) in the terminal or on the page `html`, then statistics.

    Raises:
        ConfigError: There are no validation data to show, or `html` is a folder.
    """
    if html is not None and html.is_dir():
        raise ConfigError(f'--html {html} is a folder; give a file name, such as {html / "data.html"}')
    if val and spec.val is None:
        raise ConfigError('--val requires validation data; set val_dataset (such as 0.05)')
    data = build_run_data(model, spec, chat_samples)
    split = data.val if val else data.train
    available = len(split.sequences)
    requested = min(ROWS if rows is None else rows, available)
    if html is None and requested:
        target, viewer = console(), Viewer(split, data.tokenizer)
        for index in range(requested):
            print_sequence(target, viewer.sequence(index), with_ids)
        target.rule()
        target.print(LEGEND)
    surveys = measure_long_sources(spec, data)
    say(_figures(spec, data, split, surveys, new_token_warning(model, data)))
    if rows is not None and rows > available:
        split_name = (
            'the first window' if spec.data.streaming and not val else 'validation data' if val else 'training data'
        )
        say([('rows', f'--rows {rows:,}: {split_name} has only {counted(available, "sequence")}')])
    if html is not None:
        written = write_page(html, name, model.base_model, spec, data, split, requested, surveys)
        omitted = '' if written == requested else f'; more of the {requested:,} requested would make the page too large'
        say([('wrote', f'{html} with {counted(written, "sequence")}{omitted}')])


def _figures(
    spec: DataSpec, data: TrainingData, split: Split, surveys: list[RowLengths | None], token_warning: str
) -> Iterator[tuple[str, str]]:
    yield from data_lines(spec, data, token_warning)
    for survey in surveys:
        if survey and survey.first:
            yield 'too long', f'first {survey.first}'
    yield from figure_lines(split, data.max_length)
    yield from histogram_lines(histogram(sample_lengths(split)))
