"""Runs that need less memory than the config's, nearest first: the changes that `xtune plan` suggests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..config.wire import Job

# Tokens; shorter sequences are not suggested.
SHORTEST = 256


@dataclass(frozen=True)
class Variant:
    """A changed run, and its changes as options of --cfg-options."""

    job: Job
    options: tuple[str, ...] = ()

    def changed(self, job: Job, *options: str) -> 'Variant':
        """Return this with further changes; a later value of an option replaces an earlier one."""
        names = {option.partition('=')[0] for option in options}
        return Variant(job, (*(o for o in self.options if o.partition('=')[0] not in names), *options))


def nearest_variants(job: Job) -> Iterator[Variant]:
    """Yield the run of the config and then more distant ones: checkpointing, micro-batches, method, sequence length.

    Smaller micro-batches with more gradient accumulation are the same optimizer step. Method and sequence length change
    the training.
    """
    variant = Variant(job)
    yield variant
    if variant.job.values.checkpointing not in ('auto', 'all', 'offload'):
        variant = variant.changed(with_values(variant.job, checkpointing='auto'), 'checkpointing=auto')
        yield variant
    for variant in _smaller_batches(variant):  # noqa: B020
        yield variant
    if variant.job.values.checkpointing != 'offload':
        yield variant.changed(with_values(variant.job, checkpointing='offload'), 'checkpointing=offload')
    for method in _smaller_methods(variant.job):
        variant = variant.changed(*method)
        yield variant
    length = job.values.max_length
    while length // 2 >= SHORTEST:
        length //= 2
        variant = variant.changed(with_values(variant.job, max_length=length), f'max_length={length}')
        yield variant


def in_bf16(job: Job) -> Job:
    """Return `job` with the compute type that 'auto' selects on current GPUs."""
    return with_values(job, precision='bf16') if job.values.precision == 'auto' else job


def sequence_shard(job: Job) -> Job:
    """Return `job` with the sequence length of one device under sequence parallelism."""
    return with_values(job, max_length=-(-job.values.max_length // job.strategy.sequence_parallel_size))


def with_values(job: Job, **values: Any) -> Job:
    """Return `job` with other values of options that are in no section."""
    return replace(job, values=replace(job.values, **values))


def _smaller_batches(variant: Variant) -> Iterator[Variant]:
    schedule = variant.job.schedule
    batch, sequences = schedule.batch_size, schedule.batch_size * schedule.accumulate
    while batch > 1:
        batch = max(n for n in range(1, batch // 2 + 1) if sequences % n == 0)
        changed = replace(schedule, batch_size=batch, accumulate=sequences // batch)
        options = (f'schedule.batch_size={batch}', f'schedule.accumulate={sequences // batch}')
        variant = variant.changed(replace(variant.job, schedule=changed), *options)
        yield variant


def _smaller_methods(job: Job) -> Iterator[tuple]:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    lora: Callable = job.lora or partial(LoraConfig, r=16, target_modules='all-linear', task_type='CAUSAL_LM')
    if job.lora is None:
        yield replace(job, lora=lora), 'a lora preset'
    if not (job.quantization and getattr(job.quantization(), 'load_in_4bit', False)):
        nf4 = partial(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)
        yield replace(job, lora=lora, quantization=nf4), 'a qlora preset'
