"""Checks that a model keeps packed samples independent; optimizations/packing_parity.py compares the logits."""

from contextlib import nullcontext
from importlib.util import find_spec

import torch
from transformers import PreTrainedConfig

from ..compat.transformers_private import attention_of
from ..config.strategy_traits import StrategyTraits
from ..errors import ModelError
from ..models.small_copy import small_copy
from ..optimizations.packed_attention import LAYER_TYPES
from ..optimizations.packing_parity import PackingParity, Verdict
from ..tasks.sft import SupervisedFineTuning
from ..utils.language_model import base_of
from . import summary

# Packages whose GPU kernels reset the state of recurrent layers at sample boundaries.
KERNELS = ('mamba_ssm', 'causal_conv1d', 'fla', 'kernels')


def early_refusal(config: PreTrainedConfig, attention: str | None, device: torch.device) -> str | None:
    """Return why packing is refused for a model on `device`, from a small random copy of it.

    Args:
        config: The config of the model.
        attention: The option llm.attn_implementation.
        device: The device of the run.

    Returns:
        The reason; None: packing is correct, or only the full model can tell, which is checked before the first step.
    """
    if attention not in (None, 'sdpa', 'eager'):
        return None
    if device.type != 'cpu' and any(find_spec(name) for name in KERNELS):
        return None
    verdict = _of_copy(config, torch.device('cpu'), attention)
    if verdict is None or verdict.fails or verdict.independent:
        return None
    return refusal(config, verdict, device)


def check_packing(task: SupervisedFineTuning, traits: StrategyTraits) -> None:
    """Check that the model of `task` keeps packed samples independent; pass it their boundaries if it needs them.

    Every rank calls this.

    Raises:
        ModelError: The samples are not independent.
    """
    full_sequences = task.sp_group.full_sequences() if task.sp_group is not None else nullcontext()
    with full_sequences, torch.compiler.set_stance('force_eager'):
        verdict = _verdict(task, traits)
    if verdict is None:
        return
    if not verdict.independent:
        raise ModelError(refusal(base_of(task.llm).config, verdict, task.device))
    task.boundaries = verdict.needs_boundaries
    if verdict.needs_boundaries:
        summary.show(iter([('', 'recurrent layers reset their state at the start of each packed sample')]))


def refusal(config: PreTrainedConfig, verdict: Verdict, device: torch.device) -> str:
    """Return the error message of a run that must not pack."""
    inner = config.get_text_config()
    others = sorted({name for name in getattr(inner, 'layer_types', None) or () if name not in LAYER_TYPES[:2]})
    layers = f' (it has layers of type {", ".join(others)})' if others else ''
    kernels = (
        f'; or install the kernels that do: {verdict.missing}' if verdict.missing and device.type == 'cuda' else ''
    )
    return (
        f'a {inner.model_type} model does not keep packed samples independent{layers}: {verdict.reason}; set '
        f'pack=False in the config{kernels}'
    )


def _verdict(task: SupervisedFineTuning, traits: StrategyTraits) -> Verdict | None:
    """Return the verdict of the model, of a small copy if its weights are sharded, or of both.

    FSDP2 gathers sharded weights in the forward pass, here without gradients; ZeRO-3 only in a DeepSpeed engine, which
    does not exist yet.
    """
    model_and_kernels = task.llm, task.dtype, task.device, task.autocast()
    if not traits.shards_weights:
        return PackingParity(*model_and_kernels, task.attention).verdict()
    config = base_of(task.llm).config
    copy = _of_copy(config, task.device, attention_of(config))
    if traits.is_fsdp2:
        sharded = PackingParity(*model_and_kernels, gradients=False).verdict()
        return sharded if sharded is None or not sharded.independent or copy is None or copy.fails else copy
    if copy is None or copy.fails:
        return Verdict(
            False, reason=f'strategy {traits.name} needs a small copy of it for the check, and none can be built'
        )
    return copy


def _of_copy(config: PreTrainedConfig, device: torch.device, attention: str | None) -> Verdict | None:
    """Return the verdict of a small copy; None: there is none."""
    copy = small_copy(config, device, attention if attention in ('sdpa', 'eager') else None)
    return copy and PackingParity(copy, torch.float32, device, nullcontext()).verdict()
