"""Whether a run may pack: samples in one row must not see each other. See models/separation.py for the comparison."""

from contextlib import nullcontext
from importlib.util import find_spec

import torch
from transformers import PreTrainedConfig

from ..compat.transformers_private import attention_of
from ..config.strategy_traits import StrategyTraits, traits_of
from ..config.wire import Job
from ..errors import ModelError
from ..models.small_copy import small_copy
from ..optimizations.packed_attention import LAYER_TYPES
from ..optimizations.packing_parity import PackingParity, Verdict
from ..parallel.env import World
from ..tasks.sft import SupervisedFineTuning
from ..utils.language_model import base_of
from . import summary

# Packages whose kernels keep samples apart on GPUs, in layers that carry a state over the row.
KERNELS = ('mamba_ssm', 'causal_conv1d', 'fla', 'kernels')


def is_packed(job: Job) -> bool:
    """Tell whether rows of `job` hold samples that must not see each other."""
    return job.values.packing not in ('none', 'stream')


def early_refusal(job: Job, config: PreTrainedConfig, device: torch.device) -> str | None:
    """Return why a run of `job` on `device` may not pack, from a small random copy of the model of `config`.

    None: it may, or only the model itself can tell, which it does before the first step.
    """
    attention = job.load_llm.keywords.get('attn_implementation')
    if not is_packed(job) or attention not in (None, 'sdpa', 'eager'):
        return None
    if device.type != 'cpu' and any(find_spec(name) for name in KERNELS):
        return None
    verdict = _of_copy(config, torch.device('cpu'), attention)
    if verdict is None or verdict.fails or verdict.independent:
        return None
    return refusal(config, verdict, device)


def keep_apart(job: Job, task: SupervisedFineTuning, world: World) -> None:
    """Find out whether the model of `task` keeps packed samples apart, and let it take their boundaries if it needs
    them; each process of the run calls this.

    Raises:
        ModelError: It does not keep them apart, and the run packs.
    """
    if not is_packed(job):
        return
    strategy = traits_of(job.strategy.name, world.size)
    full_sequences = task.sp_group.full_sequences() if task.sp_group is not None else nullcontext()
    with full_sequences, torch.compiler.set_stance('force_eager'):
        verdict = _verdict(task, strategy)
    if verdict is None:
        return
    if not verdict.independent:
        raise ModelError(refusal(base_of(task.llm).config, verdict, task.device))
    task.boundaries = verdict.needs_boundaries
    if verdict.needs_boundaries:
        summary.show(iter([('', 'layers with a state are told where packed samples begin')]))


def refusal(config: PreTrainedConfig, verdict: Verdict, device: torch.device) -> str:
    """Return the error message of a run that must not pack."""
    inner = config.get_text_config()
    kinds = sorted({kind for kind in getattr(inner, 'layer_types', None) or () if kind not in LAYER_TYPES[:2]})
    layers = f' (it has layers of kind {", ".join(kinds)})' if kinds else ''
    more = f'; or install the kernels that do: {verdict.missing}' if verdict.missing and device.type == 'cuda' else ''
    return (
        f'a {inner.model_type} model does not keep packed samples apart{layers}: {verdict.reason}; set pack=False in '
        f'the config{more}'
    )


def _verdict(task: SupervisedFineTuning, strategy: StrategyTraits) -> Verdict | None:
    """Return the verdict of the model, of a small copy if its weights are sharded, or of both.

    FSDP2 gathers sharded weights in the forward pass, here without gradients; ZeRO-3 only in a DeepSpeed engine, which
    does not exist yet.
    """
    known = task.llm, task.dtype, task.device, task.autocast()
    if not strategy.shards_weights:
        return PackingParity(*known, task.attention).verdict()
    config = base_of(task.llm).config
    copy = _of_copy(config, task.device, attention_of(config))
    if strategy.is_fsdp2:
        own = PackingParity(*known, gradients=False).verdict()
        return own if own is None or not own.independent or copy is None or copy.fails else copy
    if copy is None or copy.fails:
        return Verdict(False, reason=f'no small copy of it can be built to try it, as strategy {strategy.name} needs')
    return copy


def _of_copy(config: PreTrainedConfig, device: torch.device, attention: str | None) -> Verdict | None:
    """Return the verdict of a small copy; None: there is none."""
    copy = small_copy(config, device, attention if attention in ('sdpa', 'eager') else None)
    return copy and PackingParity(copy, torch.float32, device, nullcontext()).verdict()
