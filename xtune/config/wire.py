"""Turn a config into a `Job`: typed settings, and callables with their arguments.

It is the only place that combines sections: `base_model` is passed to the loaders of model and tokenizer here.
`wire` imports what the config names, but builds nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import ConfigError
from .lazy import named
from .load import section_values
from .sections import (
    SECTIONS,
    ChatSamples,
    Checkpoint,
    Data,
    Log,
    Scalars,
    Schedule,
    Source,
    Speed,
    Strategy,
    Validation,
)
from .specs import DataSpec, ModelSpec, StepSpec
from .strategy_traits import traits_of


@dataclass(frozen=True)
class Job:
    """The settings of a run. The callables build its parts; they take the arguments that depend on the machine."""

    name: str
    values: Scalars
    load_llm: Callable  # (dtype=..., device_map=..., quantization_config=...) -> PreTrainedModel
    load_tokenizer: Callable  # () -> PreTrainedTokenizerBase
    quantization: Callable | None  # (**overrides) -> a transformers quantization config
    lora: Callable | None  # () -> peft config
    optimizer: Callable  # (params) -> torch optimizer
    train_sources: tuple[Source, ...]
    val_sources: tuple[Source, ...] | float | int | None
    data: Data
    schedule: Schedule
    speed: Speed
    strategy: Strategy
    checkpoint: Checkpoint
    log: Log
    validation: Validation
    chat_samples: ChatSamples
    runner: dict

    @property
    def model(self) -> ModelSpec:
        """The model of the run."""
        return ModelSpec(
            self.values.base_model,
            self.load_llm,
            self.load_tokenizer,
            self.quantization,
            self.lora,
            self.values.precision,
            self.values.max_length,
            self.values.activation_checkpointing,
            traits_of(self.strategy.name).is_fsdp2,
        )

    @property
    def work_dir(self) -> Path:
        """Folder the run writes to."""
        return Path(self.values.work_dir or f'work_dirs/{self.name}')

    @property
    def step(self) -> StepSpec:
        """The optimizer step of the run."""
        return StepSpec(self.model, self.optimizer, self.schedule, self.values.packing, self.speed, self.strategy)

    @property
    def data_spec(self) -> DataSpec:
        """The data of the run."""
        return DataSpec(
            values=self.values, data=self.data, schedule=self.schedule, train=self.train_sources, val=self.val_sources
        )

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of training and validation data."""
        return self.data_spec.sources


def wire(cfg: Config, name: str = 'run') -> Job:
    """Return the job of a config; `name` is the config's name.

    Raises:
        ConfigError: A module named in `custom_imports` or a `type` cannot be imported.
    """
    sections = section_values(cfg)
    for module in sections.get('custom_imports') or ():
        try:
            import_module(module)
        except ImportError as error:
            raise ConfigError(
                f'custom_imports names `{module}`, which cannot be imported: {error}; '
                'install it, or put it beside the config or in the current folder'
            ) from error

    values = Scalars(**{f.name: sections[f.name] for f in fields(Scalars) if f.name in sections})
    if values.base_model.startswith('~'):
        values = replace(values, base_model=str(Path(values.base_model).expanduser()))
    return Job(
        name=name,
        values=values,
        load_llm=_call(sections['llm'], values.base_model),
        load_tokenizer=_call(sections['tokenizer'], values.base_model),
        quantization=_call(sections.get('quantization')),
        lora=_call(sections.get('lora')),
        optimizer=_call(sections['optimizer']),
        train_sources=_sources(sections['train_dataset']),
        val_sources=_sources(sections.get('val_dataset')),
        **{name: _table(sections, name) for name in _TABLES},
        runner=dict(sections.get('runner') or {}),
    )


_TABLES = dict(
    data=Data,
    schedule=Schedule,
    speed=Speed,
    strategy=Strategy,
    checkpoint=Checkpoint,
    log=Log,
    validation=Validation,
    chat_samples=ChatSamples,
)
assert set(_TABLES) <= set(SECTIONS)


def _table(sections: dict, name: str) -> Any:
    return _TABLES[name](**(sections.get(name) or {}))


def _call(section: dict | None, *args: Any) -> Callable | None:
    if section is None:
        return None
    arguments = {key: value for key, value in section.items() if key != 'type'}
    return partial(named(section['type']), *args, **arguments)


def _sources(section: dict | list | float | None) -> tuple[Source, ...] | float | None:
    if isinstance(section, dict):
        section = [section]
    return tuple(Source(**one) for one in section) if isinstance(section, (list, tuple)) else section
