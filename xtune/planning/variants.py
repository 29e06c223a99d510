"""Runs that need less memory than the config's, nearest first: the changes that `xtune plan` suggests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from ..config.specs import StepSpec

# Tokens; shorter sequences are not suggested.
SHORTEST = 256


@dataclass(frozen=True)
class Variant:
    """A changed run, and its changes as options of --cfg-options."""

    step: StepSpec
    options: tuple[str, ...] = ()

    def changed(self, step: StepSpec, *options: str) -> 'Variant':
        """Return this with further changes; a later value of an option replaces an earlier one."""
        names = {option.partition('=')[0] for option in options}
        return Variant(step, (*(o for o in self.options if o.partition('=')[0] not in names), *options))


def nearest_variants(step: StepSpec) -> Iterator[Variant]:
    """Yield the run of the config and then more distant ones: checkpointing, micro-batches, method, sequence length.

    Smaller micro-batches with more gradient accumulation are the same optimizer step. Method and sequence length change
    the training.
    """
    variant = Variant(step)
    yield variant
    if variant.step.model.activation_checkpointing not in ('auto', 'all', 'offload'):
        variant = _with_checkpointing(variant, 'auto')
        yield variant
    for variant in _smaller_batches(variant):  # noqa: B020
        yield variant
    if variant.step.model.activation_checkpointing != 'offload':
        yield _with_checkpointing(variant, 'offload')
    for method in _smaller_methods(variant.step):
        variant = variant.changed(*method)
        yield variant
    length = step.model.max_length
    while length // 2 >= SHORTEST:
        length //= 2
        variant = variant.changed(variant.step.with_model(max_length=length), f'max_length={length}')
        yield variant


def in_bf16(step: StepSpec) -> StepSpec:
    """Return `step` with the compute type that 'auto' selects on current GPUs."""
    return step.with_model(precision='bf16') if step.model.precision == 'auto' else step


def sequence_shard(step: StepSpec) -> StepSpec:
    """Return `step` with the sequence length of one device under sequence parallelism."""
    return step.with_model(max_length=-(-step.model.max_length // step.strategy.sequence_parallel_size))


def _with_checkpointing(variant: Variant, value: str) -> Variant:
    step = variant.step.with_model(activation_checkpointing=value)
    return variant.changed(step, f'activation_checkpointing={value}')


def _smaller_batches(variant: Variant) -> Iterator[Variant]:
    schedule = variant.step.schedule
    batch, sequences = schedule.batch_size, schedule.batch_size * schedule.gradient_accumulation_steps
    while batch > 1:
        batch = max(n for n in range(1, batch // 2 + 1) if sequences % n == 0)
        changed = replace(schedule, batch_size=batch, gradient_accumulation_steps=sequences // batch)
        options = (f'schedule.batch_size={batch}', f'schedule.gradient_accumulation_steps={sequences // batch}')
        variant = variant.changed(replace(variant.step, schedule=changed), *options)
        yield variant


def _smaller_methods(step: StepSpec) -> Iterator[tuple]:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    lora: Callable = step.model.lora or partial(LoraConfig, r=16, target_modules='all-linear', task_type='CAUSAL_LM')
    if step.model.lora is None:
        yield step.with_model(lora=lora), 'a lora preset'
    if not (step.model.quantization and getattr(step.model.quantization(), 'load_in_4bit', False)):
        nf4 = partial(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)
        yield step.with_model(lora=lora, quantization=nf4), 'a qlora preset'
