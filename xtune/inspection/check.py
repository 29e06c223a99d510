"""`xtune check-custom-dataset`: a summary of the training data and a verdict, in about ten lines."""

from collections.abc import Iterator

import numpy as np

from ..config.wire import Job
from ..data.overlong import PROMPT_TOO_LONG
from ..data.report import Report, counted
from ..data.training_data import TrainingData
from ..engine.job_data import build_job_data
from ..engine.new_token_report import new_token_warning
from ..engine.summary import data_lines
from .diversity import diversity
from .row_lengths import RowLengths, lengths_by_source, shortened_rows
from .statistics import length_text, sample_lengths, trained_share
from .terminal import say

MIN_ROWS = 20


def check_dataset(job: Job) -> None:
    """Print a summary of the data, and the problem to fix first.

    Raises:
        DataError, TemplateError, ModelError: The data cannot be used for training.
    """
    data = build_job_data(job)
    lengths = lengths_by_source(job.train_sources, data, job.values.train_on, job.data.streaming)
    say(_lines(job, data, lengths))
    problem = next(_problems(data, [of_source for of_source in lengths if of_source]), None)
    if problem is None and new_token_warning(job, data):
        problem = 'the data use tokens that were never trained (see above)'
    reports = data.train.reports + (data.val.reports if data.val else [])
    say([('verdict', _verdict(sum(len(report.unused.lines()) for report in reports), problem))])


def _verdict(unused: int, problem: str | None) -> str:
    if not unused:
        return f'ready to train, but: {problem}' if problem else 'ready to train'
    parts = '1 part of the data is' if unused == 1 else f'{unused} parts of the data are'
    return f'ready to train, but {parts} not used (see above){f"; and: {problem}" if problem else ""}'


def _lines(job: Job, data: TrainingData, lengths: list[RowLengths | None]) -> Iterator[tuple[str, str]]:
    row_lines = (_row_lines(report, of_source) for report, of_source in zip(data.train.reports, lengths, strict=True))
    for label, text in data_lines(job, data):
        if label == 'data':
            yield label, f'first window only: {text}' if job.data.streaming else text
            yield from (('', line) for line in next(row_lines))
        elif label == 'packing':
            yield 'lengths', length_text(sample_lengths(data.train))
            yield label, text
        elif label in ('validation', 'template', 'tokens'):
            yield label, text
            if label == 'validation':
                each = (report.remark_lines() + report.unused.lines() for report in data.val.reports)
                yield from (('', line) for lines in each for line in lines)
    schedule = job.schedule
    per_epoch = '' if job.data.streaming else f'{data.steps.steps_per_epoch:,} per epoch, '
    size = f'{schedule.batch_size} x {schedule.accumulate} sequences each'
    yield 'steps', f'{per_epoch}{len(data.steps):,} in total ({size})'


def _row_lines(report: Report, lengths: RowLengths | None) -> Iterator[str]:
    """Yield a line about skipped rows, and one about rows that are too long, each with the first such row."""
    if report.bad:
        example = f'; first: {": ".join(report.examples[0])}' if report.examples else ''
        yield f'{counted(report.bad_rows, "row")} skipped: {_reasons(report.bad.most_common())}{example}'
    if lengths:
        example = f'; first: {lengths.first_too_long}' if lengths.first_too_long else ''
        yield f'{", ".join(report.length_lines())}{example}'
    yield from report.remark_lines()
    yield from report.unused.lines()


def _reasons(counts: list[tuple[str, int]]) -> str:
    return ', '.join(f'{reason} ({count:,})' for reason, count in counts) if len(counts) > 1 else counts[0][0]


def _problems(data: TrainingData, lengths: list[RowLengths]) -> Iterator[str]:
    """Yield likely problems of the data, the worst first."""
    compared, share, reports = diversity(data.train), trained_share(data.train), data.train.reports
    rows, skipped = (sum(getattr(report, name) for report in reports) for name in ('rows', 'bad_rows'))
    if compared.replies == 1 and compared.samples > 1:
        yield f'all {compared.samples:,} replies are the same'
    if share < 0.05:
        yield f'only {share:.1%} of the tokens are trained: `xtune log-dataset` shows which'
    if (short := sum(map(shortened_rows, reports))) > 0.1 * rows:
        tokens = np.concatenate([of_source.lengths for of_source in lengths])
        fits = int(np.percentile(tokens, 99, method='higher')) if len(tokens) else 0
        more = f'raise max_length to {fits:,} (99 % of the rows fit)' if fits > data.max_length else 'raise max_length'
        yield f'{short / rows:.0%} of the rows are truncated or dropped: {more}'
    if compared.repeated > 0.2:
        yield f'{compared.repeated:.0%} of the samples are duplicates of another row: remove them'
    if compared.rows < MIN_ROWS:
        yield f'only {counted(compared.rows, "row")}: a model needs at least dozens to learn from'
    if skipped > 0.01 * rows:
        advice = next(
            (report.length_advice() for report in reports if 2 * report.bad[PROMPT_TOO_LONG] > report.bad_rows), ''
        )
        yield f'{skipped / rows:.1%} of the rows are skipped: {advice or "fix or remove them (see above)"}'
    if any(report.hints for report in reports):
        yield 'each line of a text file is trained as a separate document (see above)'
