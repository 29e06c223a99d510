"""Build streamed training data."""

import hashlib

from ..config.specs import DataSpec
from ..errors import ConfigError
from .cursor import Cursor
from .encoder_factory import EncoderFactory
from .open_source import open_source
from .rank_shard import RankShard
from .sources import RowSource, files_of
from .split import Split
from .steps import StreamedSteps
from .stream import RowStream, StreamSettings


def build_stream(
    spec: DataSpec, encoders: EncoderFactory, pad_id: int, shard: RankShard
) -> tuple[Split, StreamedSteps]:
    """Return the first window, for inspection, and the steps of the run.

    Raises:
        ConfigError: The number of steps is not given, or a share of the rows is to be held out.
        DataError: A source is missing, broken, or has too many unusable rows in the first window.
    """
    _check(spec)
    schedule, values, data = spec.schedule, spec.values, spec.data
    elsewhere = files_of(spec.sources)
    sources = [RowSource(source, streaming=True, elsewhere=elsewhere) for source in spec.train]
    source_encoders = [encoders.for_source(rows.source) for rows in sources]
    pairs = [(rows, open_source(rows, encoder)) for rows, encoder in zip(sources, source_encoders, strict=True)]
    weights = [source.weight for source in spec.train]
    settings = StreamSettings(
        weights=weights if any(weights) else None,
        window=data.window,
        sequences_per_step=schedule.batch_size * schedule.gradient_accumulation_steps * shard.dp_size,
        packing=values.packing,
        max_length=values.max_length,
        seed=values.seed,
        max_bad_rows=data.max_bad_rows,
        strict=data.strict,
    )
    stream = RowStream(pairs, source_encoders, settings)
    first = next(stream.windows(Cursor(0, [0] * len(pairs))))
    identity = (
        [rows.identity() for rows, _ in pairs],
        [mapper.identity() for _, mapper in pairs],
        [encoder.identity() for encoder in source_encoders],
        (weights, data.window, settings.sequences_per_step, values.packing, values.seed),
    )
    steps = StreamedSteps(
        stream,
        steps=schedule.max_steps,
        batch_size=schedule.batch_size,
        pad_id=pad_id,
        identity=hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest(),
        shard=shard,
    )
    return Split(first.store, first.sequences, first.reports, [1.0] * len(pairs)), steps


def _check(spec: DataSpec) -> None:
    if spec.schedule.max_steps is None:
        raise ConfigError('data.streaming=True has no end of data, so it needs schedule.max_steps')
    if spec.val is not None and not isinstance(spec.val, tuple):
        raise ConfigError(
            f'val_dataset={spec.val} holds out rows, which is not possible with data.streaming=True; set a path in '
            'val_dataset'
        )
    if spec.data.longest_first:
        raise ConfigError('data.longest_first=True needs the lengths of all rows, unknown with data.streaming=True')
