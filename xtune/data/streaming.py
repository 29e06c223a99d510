"""From a wired job to streamed training data."""

import hashlib

from ..config.wire import Job
from ..errors import ConfigError
from .encoders import Encoders
from .prepare import opened
from .sources import RowSource, files_of
from .split import Split
from .steps import Share, StreamedSteps
from .stream import Cursor, RowStream


def streamed(job: Job, encoders: Encoders, pad_id: int, share: Share) -> tuple[Split, StreamedSteps]:
    """Return the first window, to be looked at, and the steps of the run.

    Raises:
        ConfigError: The number of steps is not given, or a share of the rows is to be held out.
        DataError: A source is missing, broken, or has too many unusable rows in the first window.
    """
    _check(job)
    schedule, values = job.schedule, job.values
    elsewhere = files_of(job.sources)
    sources = [RowSource(source, streaming=True, elsewhere=elsewhere) for source in job.train_sources]
    each = [encoders.of(rows.source) for rows in sources]
    pairs = [(rows, opened(rows, encoder)) for rows, encoder in zip(sources, each, strict=True)]
    weights = [source.weight for source in job.train_sources]
    stream = RowStream(
        pairs,
        each,
        weights=weights if any(weights) else None,
        window=job.data.window,
        per_step=schedule.batch_size * schedule.gradient_accumulation_steps * share.of,
        mode=values.packing,
        seed=values.seed,
        max_bad_rows=job.data.max_bad_rows,
        strict=job.data.strict,
    )
    first = next(stream.windows(Cursor(0, [0] * len(pairs))))
    identity = (
        [rows.identity() for rows, _ in pairs],
        [mapper.identity() for _, mapper in pairs],
        [encoder.identity() for encoder in each],
        (weights, job.data.window, stream.per_step, values.packing, values.seed),
    )
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()
    steps = StreamedSteps(stream, schedule.max_steps, schedule.batch_size, pad_id, digest, share)
    return Split(first.store, first.sequences, first.reports, [1.0] * len(pairs)), steps


def _check(job: Job) -> None:
    if job.schedule.max_steps is None:
        raise ConfigError('data.streaming=True reads rows without end, so it needs schedule.max_steps')
    if job.val_sources is not None and not isinstance(job.val_sources, tuple):
        raise ConfigError(
            f'val_dataset={job.val_sources} holds out rows, which a stream cannot; give val_dataset a path of its own'
        )
    if job.data.longest_first:
        raise ConfigError('data.longest_first=True needs the lengths of all rows, which a stream does not know')
