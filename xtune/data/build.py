"""Build the data of a run: check tokenizer and chat template, tokenize the rows, pack and schedule the samples.

The model is not loaded here, so a broken data file is reported within seconds.
"""

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..config.sections import ChatSamples, Source
from ..config.specs import DataSpec
from ..errors import ConfigError, DataError
from ..templates.resolve import resolve
from ..templates.system_prompts import system_text
from .batch_schedule import BatchSchedule
from .build_stream import build_stream
from .chat_tokenizer import ChatTokenizer
from .encoder_factory import EncoderFactory
from .mixing import mix
from .packing import Sequences, pack
from .prepare import prepare
from .rank_shard import SINGLE_RANK, RankShard
from .report import Report
from .sources import files_of
from .split import Split
from .steps import ScheduledSteps
from .stop_tokens import stop_token_ids
from .store import ConcatStore
from .training_data import TrainingData


def build_data(
    tokenizer: PreTrainedTokenizerBase,
    spec: DataSpec,
    chat_samples: ChatSamples | None = None,
    shard: RankShard = SINGLE_RANK,
) -> TrainingData:
    """Return the data of a run.

    Args:
        tokenizer: The tokenizer of the base model.
        spec: The sources and the options that the data depend on.
        chat_samples: Prompts for samples during training; checked here, so that they fail before training.
        shard: The part of each step that this rank computes.

    Raises:
        DataError, TemplateError, ConfigError: The config or the data must be changed.
    """
    values = spec.values
    chat_tokenizer = ChatTokenizer(tokenizer, resolve(values.chat_template, tokenizer), values.control_tokens)
    stop_ids = stop_token_ids(chat_tokenizer)
    if chat_samples is not None and chat_samples.every_steps:
        _check_prompts(chat_samples, chat_tokenizer)
    encoders = EncoderFactory(chat_tokenizer, values.max_length, values.overlong, values.train_on)
    pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    if spec.data.streaming:
        val = _validation(spec, encoders)
        train, steps = build_stream(spec, encoders, pad_id, shard)
    else:
        train, val = _splits(spec, encoders)
        steps = _scheduled_steps(spec, train, pad_id, shard)
    return TrainingData(
        chat_tokenizer=chat_tokenizer,
        stop_ids=stop_ids,
        train=train,
        val=val,
        steps=steps,
        max_length=values.max_length,
    )


def _scheduled_steps(spec: DataSpec, train: Split, pad_id: int, shard: RankShard) -> ScheduledSteps:
    section = spec.schedule
    schedule = BatchSchedule(
        sequences=train.sequences,
        batch_size=section.batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        seed=spec.values.seed,
        longest_first=spec.data.longest_first,
        devices=shard.dp_size,
    )
    steps = schedule.steps_per_epoch * section.max_epochs
    steps = min(steps, section.max_steps or steps)
    return ScheduledSteps(train.store, train.store.content_hash, schedule, steps=steps, pad_id=pad_id, shard=shard)


def _splits(spec: DataSpec, encoders: EncoderFactory) -> tuple[Split, Split | None]:
    """Return training and validation data; rows are held out before sources are mixed."""
    sources, seed = spec.train, spec.values.seed
    store, reports = _prepare(sources, spec, encoders)
    kept, val = np.ones(len(store), dtype=bool), _validation(spec, encoders)
    if val is None and spec.val is not None:
        kept = ~_held_out(store, spec.val, seed)
        val = Split(store, _pack(store, np.flatnonzero(~kept), spec), [], [])
    counts = [int(kept[start:end].sum()) for start, end in zip(store.offsets, store.offsets[1:], strict=False)]
    weights = [source.weight for source in sources]
    if any(weights) and 0 in counts:
        raise DataError(f'val_dataset={spec.val} leaves no rows of {sources[counts.index(0)].path} for training')
    order, repeats = mix(counts, weights if any(weights) else None, seed)
    return Split(store, _pack(store, np.flatnonzero(kept)[order], spec), reports, repeats), val


def _validation(spec: DataSpec, encoders: EncoderFactory) -> Split | None:
    """Return the validation data, if they have sources of their own."""
    if not isinstance(spec.val, tuple):
        return None
    store, reports = _prepare(spec.val, spec, encoders)
    return Split(store, _pack(store, np.arange(len(store)), spec), reports, [])


def _prepare(sources: tuple[Source, ...], spec: DataSpec, encoders: EncoderFactory) -> tuple[ConcatStore, list[Report]]:
    data, elsewhere = spec.data, files_of(spec.sources)
    prepared = [
        prepare(
            source,
            encoders.for_source(source),
            num_proc=data.num_proc,
            max_bad_rows=data.max_bad_rows,
            strict=data.strict,
            elsewhere=elsewhere,
        )
        for source in sources
    ]
    return ConcatStore([store for store, _ in prepared]), [report for _, report in prepared]


def _check_prompts(chat_samples: ChatSamples, chat_tokenizer: ChatTokenizer) -> None:
    """Render the prompts now: one that the template refuses must not stop the run hundreds of steps later."""
    system = [{'role': 'system', 'content': system_text(chat_samples.system)}] if chat_samples.system else []
    for prompt in chat_samples.prompts:
        if not isinstance(prompt, str):
            raise ConfigError(f'chat_samples.prompts contains {prompt!r}, which is not a string')
        chat_tokenizer.prompt_ids([*system, {'role': 'user', 'content': prompt}])


def _pack(store: ConcatStore, indices: np.ndarray, spec: DataSpec) -> Sequences:
    values = spec.values
    return pack(values.packing, store.lengths, indices, values.max_length, values.seed)


def _held_out(store: ConcatStore, amount: float, seed: int) -> np.ndarray:
    """Return which samples [N] are held out; all samples of a row stay together.

    Args:
        store: The samples.
        amount: Number of rows, or their share if below 1.
        seed: Seed of the choice.
    """
    rows, row_of_sample = np.unique(store.rows(), return_inverse=True)
    count = int(amount) if amount >= 1 else max(1, round(amount * len(rows)))
    if count >= len(rows):
        raise DataError(f'val_dataset={amount} would hold out {count} of {len(rows)} rows and leave none for training')
    is_held_out = np.zeros(len(rows), dtype=bool)
    is_held_out[np.random.default_rng(seed).permutation(len(rows))[:count]] = True
    return is_held_out[row_of_sample]
