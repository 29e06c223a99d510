"""Options that are set and can have no effect beside the others: refused where a run would lack what they ask for,
noted otherwise. A value that is the default one never counts as set.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ..config.method_values import quantization_notes
from ..config.strategy_traits import traits_of
from ..config.wire import Job
from ..errors import ConfigError


def check(job: Job) -> None:
    """Refuse options that the run would never apply.

    Raises:
        ConfigError: There are some. The message lists them all.
    """
    problems = list(_problems(job))
    if problems:
        raise ConfigError('; '.join(problems))


def notes(job: Job, devices: int) -> Iterator[str]:
    """Yield a sentence for each other option of `job`, on that many devices, that is set and has no effect."""
    data, schedule, strategy = job.data, job.schedule, job.strategy
    if data.streaming:
        for place, key in ((data, 'num_proc'), (schedule, 'max_epochs'), (job.checkpoint, 'every_epochs')):
            if _is_set(place, key):
                yield f'{_path(place, key)} has no effect with data.streaming=True'
    elif _is_set(data, 'window'):
        yield f'{_path(data, "window")} has no effect without data.streaming=True'
    if job.chat_samples.every_steps is not None and job.chat_samples.prompts == []:
        yield f'chat_samples.every_steps={job.chat_samples.every_steps} has no effect: chat_samples.prompts is empty'
    if job.lora is not None and job.checkpoint.background:
        yield 'checkpoint.background=True has no effect on an adapter, which is written in no time'
    if job.lora is None and _is_set(job.checkpoint, 'export_adapter'):
        yield 'checkpoint.export_adapter=False has no effect without the section lora'
    if len(job.train_sources) == 1 and job.train_sources[0].weight not in (None, 1):
        yield f'train_dataset.weight={job.train_sources[0].weight} has no effect: there is one data set'
    if devices == 1 and _is_set(strategy, 'timeout'):
        yield f'{_path(strategy, "timeout")} has no effect on one device'
    yield from quantization_notes(job.quantization)


def notes_on_steps(job: Job, steps: int, per_epoch: int) -> Iterator[str]:
    """Yield the same for options that count steps, once it is known that the run has `steps` optimizer steps."""
    schedule = job.schedule
    if not job.data.streaming and (schedule.max_steps or 0) > steps:
        yield (
            f'schedule.max_steps={schedule.max_steps} has no effect: schedule.max_epochs={schedule.max_epochs} ends '
            f'the run after {steps} step{"" if steps == 1 else "s"}'
        )
    if _is_set(schedule, 'warmup_ratio') and schedule.warmup_ratio and round(schedule.warmup_ratio * steps) == 0:
        yield f'{_path(schedule, "warmup_ratio")} has no effect: of {steps} steps that is less than half a step'
    for place in (job.checkpoint, job.validation):
        # Both also happen at the end of epochs.
        if _is_set(place, 'every_steps') and (place.every_steps or 0) > min(steps, per_epoch or steps):
            yield f'{_path(place, "every_steps")} has no effect: an epoch has {min(steps, per_epoch or steps)} steps'


def _problems(job: Job) -> Iterator[str]:
    strategy, samples = job.strategy, job.chat_samples
    if job.validation.every_steps is not None and job.val_sources is None:
        yield (
            f'validation.every_steps={job.validation.every_steps}, but there are no validation data: set val_dataset, '
            'or remove validation.every_steps'
        )
    if samples.every_steps is not None and samples.prompts == ():  # an empty list turns them off
        yield (
            f'chat_samples.every_steps={samples.every_steps}, but there are no prompts: set chat_samples.prompts, or '
            'chat_samples.every_steps=None'
        )
    if _is_set(job.schedule, 'min_lr_ratio') and job.schedule.lr_schedule == 'constant':
        yield (
            f"schedule.min_lr_ratio={job.schedule.min_lr_ratio}, but schedule.lr_schedule='constant' never falls: set "
            "schedule.lr_schedule='cosine', or remove schedule.min_lr_ratio"
        )
    if strategy.deepspeed is not None and not traits_of(strategy.name).is_zero:
        yield (
            f'strategy.deepspeed is for zero1 to zero3, and strategy.name={strategy.name!r}: set strategy.name, or '
            'strategy.deepspeed=None'
        )


def _is_set(section: Any, key: str) -> bool:
    """Tell whether a key of a section has another value than its default."""
    [default] = [one.default for one in fields(section) if one.name == key]
    return getattr(section, key) != default


def _path(section: Any, key: str) -> str:
    """Return the option with its value; a section is named like its class."""
    return f'{type(section).__name__.lower()}.{key}={getattr(section, key)!r}'
