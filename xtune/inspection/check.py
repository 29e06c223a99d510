"""`xtune check-custom-dataset`: a verdict on the training data, in about ten lines."""

from collections.abc import Iterator

import numpy as np

from ..config.wire import Job
from ..data.overlong import PROMPT_TOO_LONG
from ..data.report import Report, counted
from ..data.training_data import TrainingData
from ..engine.job_data import build_job_data
from ..engine.new_token_report import new_token_warning
from ..engine.summary import data_lines
from .statistics import length_text, sample_lengths, trained_share
from .survey import Uncut, likeness, shortened_rows, surveyed
from .terminal import say

FEW_ROWS = 20


def check_dataset(job: Job) -> None:
    """Print what there is to train on and what to look at first.

    Raises:
        DataError, TemplateError, ModelError: The data cannot be trained on as it is.
    """
    data = build_job_data(job)
    surveys = surveyed(job, data)
    say(_lines(job, data, surveys))
    worry = next(_worries(data, [survey for survey in surveys if survey]), None)
    worry = worry or (
        'the data use tokens that nobody has trained (see above)' if new_token_warning(job, data) else None
    )
    reports = data.train.reports + (data.val.reports if data.val else [])
    say([('verdict', _verdict(sum(len(report.unused.lines()) for report in reports), worry))])


def _verdict(unused: int, worry: str | None) -> str:
    if not unused:
        return f'ready to train, but: {worry}' if worry else 'ready to train'
    things = '1 thing is' if unused == 1 else f'{unused} things are'
    return f'ready, but {things} not used (see above){f"; and: {worry}" if worry else ""}'


def _lines(job: Job, data: TrainingData, surveys: list[Uncut | None]) -> Iterator[tuple[str, str]]:
    losses = (_loss_lines(report, survey) for report, survey in zip(data.train.reports, surveys, strict=True))
    for label, text in data_lines(job, data):
        if label == 'data':
            yield label, f'first window only: {text}' if job.data.streaming else text
            yield from (('', line) for line in next(losses))
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


def _loss_lines(report: Report, survey: Uncut | None) -> Iterator[str]:
    """Yield a line about the rows that are skipped, and one about those that are too long, with the first of each."""
    if report.bad:
        example = f'; first: {": ".join(report.examples[0])}' if report.examples else ''
        yield f'{counted(report.bad_rows, "row")} skipped: {_reasons(report.bad.most_common())}{example}'
    if survey:
        example = f'; first: {survey.first}' if survey.first else ''
        parts = [counted(count, *note.split(' ', 1)) for note, count in report.length_changes.most_common() if count]
        yield f'{", ".join(parts)}{example}'
    yield from report.remark_lines()
    yield from report.unused.lines()


def _reasons(counts: list[tuple[str, int]]) -> str:
    return ', '.join(f'{reason} ({count:,})' for reason, count in counts) if len(counts) > 1 else counts[0][0]


def _worries(data: TrainingData, surveys: list[Uncut]) -> Iterator[str]:
    """Yield what may spoil the training, the worst first."""
    alike, share, reports = likeness(data.train), trained_share(data.train), data.train.reports
    rows, skipped = (sum(getattr(report, name) for report in reports) for name in ('rows', 'bad_rows'))
    if alike.replies == 1 and alike.samples > 1:
        yield f'all {alike.samples:,} replies are the same'
    if share < 0.05:
        yield f'only {share:.1%} of the tokens are trained: `xtune log-dataset` shows which'
    if (short := sum(map(shortened_rows, reports))) > 0.1 * rows:
        lengths = np.concatenate([survey.lengths for survey in surveys])
        fits = int(np.percentile(lengths, 99, method='higher')) if len(lengths) else 0
        more = f'raise max_length to {fits:,} (99 % of the rows fit)' if fits > data.max_length else 'raise max_length'
        yield f'{short / rows:.0%} of the rows are shortened or dropped: {more}'
    if alike.repeated > 0.2:
        yield f'{alike.repeated:.0%} of the samples repeat another row: remove the duplicates'
    if alike.rows < FEW_ROWS:
        yield f'{counted(alike.rows, "row")} to train on are few: a model needs at least dozens to learn from'
    if skipped > 0.01 * rows:
        advice = next(
            (report.length_advice() for report in reports if 2 * report.bad[PROMPT_TOO_LONG] > report.bad_rows), ''
        )
        yield f'{skipped / rows:.1%} of the rows are skipped: {advice or "fix or remove them (see above)"}'
    if any(report.hints for report in reports):
        yield 'lines of a text file are trained one by one (see above)'
