"""`xtune check-custom-dataset`: summarize the training data and its problems in about ten lines."""

from collections.abc import Iterator

import numpy as np

from ..config.sections import ChatSamples
from ..config.specs import DataSpec, ModelSpec
from ..data.overlong import PROMPT_TOO_LONG
from ..data.report import Report, counted
from ..data.training_data import TrainingData
from ..engine.build_run_data import build_run_data
from ..engine.new_token_report import new_token_warning
from ..engine.summary import data_lines
from .statistics import length_text, sample_lengths, trained_share
from .survey import RowLengths, find_duplicates, measure_long_sources, num_shortened_rows
from .terminal import say

FEW_ROWS = 20


def check_dataset(model: ModelSpec, spec: DataSpec, chat_samples: ChatSamples) -> None:
    """Print a summary of the training data, and the most important problem.

    Raises:
        DataError: The data cannot be used.
        TemplateError: The chat template cannot be used.
        ModelError: The tokenizer cannot be loaded.
    """
    data = build_run_data(model, spec, chat_samples)
    surveys, token_warning = measure_long_sources(spec, data), new_token_warning(model, data)
    say(_lines(spec, data, surveys, token_warning))
    problem = next(_problems(data, [survey for survey in surveys if survey]), None)
    if problem is None and token_warning:
        problem = 'the data contain tokens whose embeddings are untrained (see above)'
    reports = data.train.reports + (data.val.reports if data.val else [])
    say([('verdict', _verdict(sum(len(report.unused.lines()) for report in reports), problem))])


def _verdict(num_unused: int, problem: str | None) -> str:
    if not num_unused:
        return f'ready to train, but: {problem}' if problem else 'ready to train'
    things = '1 thing is' if num_unused == 1 else f'{num_unused} things are'
    return f'ready, but {things} not used (see above){f"; and: {problem}" if problem else ""}'


def _lines(
    spec: DataSpec, data: TrainingData, surveys: list[RowLengths | None], token_warning: str
) -> Iterator[tuple[str, str]]:
    row_lines = (_row_lines(report, survey) for report, survey in zip(data.train.reports, surveys, strict=True))
    for label, text in data_lines(spec, data, token_warning):
        if label == 'data':
            yield label, f'first window only: {text}' if spec.data.streaming else text
            yield from (('', line) for line in next(row_lines))
        elif label == 'packing':
            yield 'lengths', length_text(sample_lengths(data.train))
            yield label, text
        elif label in ('validation', 'template', 'tokens'):
            yield label, text
            if label == 'validation':
                each = (report.remark_lines() + report.unused.lines() for report in data.val.reports)
                yield from (('', line) for lines in each for line in lines)
    schedule = spec.schedule
    per_epoch = '' if spec.data.streaming else f'{data.steps.steps_per_epoch:,} per epoch, '
    size = f'{schedule.batch_size} x {schedule.gradient_accumulation_steps} sequences each'
    yield 'steps', f'{per_epoch}{len(data.steps):,} in total ({size})'


def _row_lines(report: Report, survey: RowLengths | None) -> Iterator[str]:
    """Yield a line about the skipped rows and one about the rows that are too long, with an example each."""
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


def _problems(data: TrainingData, surveys: list[RowLengths]) -> Iterator[str]:
    """Yield problems that may spoil the training, the worst first."""
    duplicates, share, reports = find_duplicates(data.train), trained_share(data.train), data.train.reports
    rows, skipped = (sum(getattr(report, name) for report in reports) for name in ('rows', 'bad_rows'))
    if duplicates.responses == 1 and duplicates.samples > 1:
        yield f'all {duplicates.samples:,} samples have the same response'
    if share < 0.05:
        yield f'only {share:.1%} of the tokens are trained: `xtune log-dataset` shows which'
    if (num_shortened := sum(map(num_shortened_rows, reports))) > 0.1 * rows:
        lengths = np.concatenate([survey.lengths for survey in surveys])
        p99 = int(np.percentile(lengths, 99, method='higher')) if len(lengths) else 0
        advice = (
            f'set max_length to {p99:,} (fits 99 % of the rows)' if p99 > data.max_length else 'increase max_length'
        )
        yield f'{num_shortened / rows:.0%} of the rows are truncated or dropped: {advice}'
    if duplicates.repeated > 0.2:
        yield f'{duplicates.repeated:.0%} of the samples are duplicates: remove them'
    if duplicates.rows < FEW_ROWS:
        yield f'only {counted(duplicates.rows, "row")} to train on: use at least a few dozen'
    if skipped > 0.01 * rows:
        advice = next(
            (report.length_advice() for report in reports if 2 * report.bad[PROMPT_TOO_LONG] > report.bad_rows), ''
        )
        yield f'{skipped / rows:.1%} of the rows are skipped: {advice or "fix or remove them (see above)"}'
    if any(report.hints for report in reports):
        yield 'each line of a text file is a separate sample (see above)'
