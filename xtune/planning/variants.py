"""Runs that differ from a config's, nearest first: what to change where it does not fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..config.wire import Job

# Tokens; shorter sequences are not proposed.
SHORTEST = 256


@dataclass(frozen=True)
class Variant:
    """A run that differs from the config's, and how: options of --cfg-options."""

    job: Job
    options: tuple[str, ...] = ()

    def but(self, job: Job, *options: str) -> 'Variant':
        """Return this with more changes; a later value of an option takes the place of an earlier one."""
        names = {option.partition('=')[0] for option in options}
        return Variant(job, (*(o for o in self.options if o.partition('=')[0] not in names), *options))


def nearest(job: Job) -> Iterator[Variant]:
    """Yield the config's run and ever more distant ones: recomputing, micro-batches, method, length.

    Smaller micro-batches with more accumulation are the same optimizer step; the last changes are another run.
    """
    now = Variant(job)
    yield now
    if now.job.values.activation_checkpointing not in ('auto', 'all', 'offload'):
        now = now.but(with_values(now.job, activation_checkpointing='auto'), 'activation_checkpointing=auto')
        yield now
    for now in _smaller(now):  # noqa: B020
        yield now
    if now.job.values.activation_checkpointing != 'offload':
        yield now.but(with_values(now.job, activation_checkpointing='offload'), 'activation_checkpointing=offload')
    for method in _methods(now.job):
        now = now.but(*method)
        yield now
    length = job.values.max_length
    while length // 2 >= SHORTEST:
        length //= 2
        now = now.but(with_values(now.job, max_length=length), f'max_length={length}')
        yield now


def in_bf16(job: Job) -> Job:
    """Return `job` with the compute type that 'auto' means on the GPUs of today."""
    return with_values(job, precision='bf16') if job.values.precision == 'auto' else job


def shared(job: Job) -> Job:
    """Return `job` with what a device has of each row; the rest is with its neighbours."""
    return with_values(job, max_length=-(-job.values.max_length // job.strategy.sequence_parallel_size))


def with_values(job: Job, **values: Any) -> Job:
    """Return `job` with other values of keys that stand in no section."""
    return replace(job, values=replace(job.values, **values))


def _smaller(now: Variant) -> Iterator[Variant]:
    schedule = now.job.schedule
    batch, sequences = schedule.batch_size, schedule.batch_size * schedule.gradient_accumulation_steps
    while batch > 1:
        batch = max(n for n in range(1, batch // 2 + 1) if sequences % n == 0)
        made = replace(schedule, batch_size=batch, gradient_accumulation_steps=sequences // batch)
        options = (f'schedule.batch_size={batch}', f'schedule.gradient_accumulation_steps={sequences // batch}')
        now = now.but(replace(now.job, schedule=made), *options)
        yield now


def _methods(job: Job) -> Iterator[tuple]:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    lora: Callable = job.lora or partial(LoraConfig, r=16, target_modules='all-linear', task_type='CAUSAL_LM')
    if job.lora is None:
        yield replace(job, lora=lora), 'a lora preset'
    if not (job.quantization and getattr(job.quantization(), 'load_in_4bit', False)):
        nf4 = partial(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)
        yield replace(job, lora=lora, quantization=nf4), 'a qlora preset'
