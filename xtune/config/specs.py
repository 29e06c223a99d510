"""Parts of a wired config, each with what one task needs: the model, its data, or an optimizer step.

`Job` (wire.py) makes them. Code below the commands takes one of these or a section, not the whole config.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .sections import Data, Scalars, Schedule, Source, Speed, Strategy
from .strategy_traits import traits_of


@dataclass(frozen=True)
class ModelSpec:
    """The model of a run: base, method and compute type, wired but not built.

    Attributes:
        base_model: Hub name or local folder.
        load_llm: `(dtype=..., device_map=..., quantization_config=...) -> PreTrainedModel`.
        load_tokenizer: `() -> PreTrainedTokenizerBase`.
        quantization: `(**overrides) -> a transformers quantization config`; None: the base is not quantized.
        lora: `() -> a peft config`; None: all weights are trained.
        precision: 'auto', 'bf16' or 'fp32'.
        max_length: Tokens per training sequence.
        activation_checkpointing: The option of that name.
        float_quant_storage: Store packed 4-bit weights in the compute type, because FSDP2 shards only floats.
    """

    base_model: str
    load_llm: Callable
    load_tokenizer: Callable
    quantization: Callable | None
    lora: Callable | None
    precision: str
    max_length: int
    activation_checkpointing: int | str
    float_quant_storage: bool

    @property
    def attn_implementation(self) -> str | None:
        """The attention that the section `llm` asks for."""
        return self.load_llm.keywords.get('attn_implementation')


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The data of a run.

    Attributes:
        values: Single values, such as `max_length`, `pack` and `seed`.
        data: Reading and checking of rows.
        schedule: Batch size, gradient accumulation and number of steps.
        train: Sources of training data.
        val: Sources of validation data, or the share or number of training rows to hold out, or None.
    """

    values: Scalars
    data: Data
    schedule: Schedule
    train: tuple[Source, ...]
    val: tuple[Source, ...] | float | int | None

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of training and validation data."""
        return self.train + (self.val if isinstance(self.val, tuple) else ())


@dataclass(frozen=True)
class StepSpec:
    """An optimizer step of a run: all that its kernels and its memory depend on.

    Attributes:
        model: The model.
        optimizer: `(params) -> torch optimizer`.
        schedule: Micro-batch size (sequences per device) and gradient accumulation (micro-batches per step).
        packing: A mode of `xtune.data.packing`.
        speed: The optimizations that are switched on.
        strategy: How the model is placed on the ranks.
    """

    model: ModelSpec
    optimizer: Callable
    schedule: Schedule
    packing: str
    speed: Speed
    strategy: Strategy

    @property
    def is_packed(self) -> bool:
        """Whether a sequence holds several samples that must not attend to each other."""
        return is_packed(self.packing)

    def is_replicated(self, num_ranks: int) -> bool:
        """Return whether each of `num_ranks` ranks holds the full model."""
        return traits_of(self.strategy.name, num_ranks).is_replicated

    def with_model(self, **values: Any) -> 'StepSpec':
        """Return the step with other values of its model."""
        return replace(self, model=replace(self.model, **values))


def is_packed(packing: str) -> bool:
    """Return whether sequences hold several samples that must not attend to each other."""
    return packing not in ('none', 'stream')
