"""PiSSA and OLoRA: an adapter that starts as a part of the base's weights, which the base then lacks.

A frozen weight W becomes W - s B0 A0, and the adapter starts at A0, B0 (s is the scaling of LoRA), so the model is the
same before the first step. What is trained is W + s (B A - B0 A0). As A0 and B0 are kept with the model and in each
checkpoint, a resumed run has exactly the same base, and an export is an ordinary LoRA of twice the rank on W.

Shapes: W [O, I], A [R, I], B [O, R] (output features, input features, rank).
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant

from ..config.adapter_start import changes_base
from ..errors import CheckpointError, ModelError
from ..hf_format.writer import ExportInfo

_ADAPTER = 'default'
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
Initial = dict[str, torch.Tensor]  # A0 and B0 by the names that an adapter file has


def split_base(
    llm: PeftModel, start: str, stored: Initial | None = None, agree: Callable[[torch.Tensor], Any] | None = None
) -> None:
    """Take the adapter's start out of the base, in place; `llm.initial_adapter` keeps it (float32, on the CPU).

    Weights on the meta device have no values, so only the layers are checked.

    Args:
        llm: A model with a fresh adapter.
        start: 'pissa', 'pissa_niter_N' or 'olora'.
        stored: A0 and B0 of an earlier run that is resumed.
        agree: Replaces a tensor by that of the first process, in place.

    Raises:
        ModelError: A layer cannot be split.
        CheckpointError: `stored` is of another adapter.
    """
    initial: Initial = {}
    for name, layer in _layers(llm, start):
        weight, scale = layer.get_base_layer().weight, layer.scaling[_ADAPTER]
        if weight.is_meta:
            continue
        whole_OI = weight.data.float().T if layer.fan_in_fan_out else weight.data.float()
        if stored is None:
            down_RI, up_OR = _factors(whole_OI, start, layer.r[_ADAPTER], scale)
        else:
            down_RI, up_OR = (_stored(stored, f'{name}.lora_{part}.weight', layer) for part in 'AB')
            down_RI, up_OR = down_RI.to(weight.device), up_OR.to(weight.device)
        if agree is not None:
            agree(down_RI), agree(up_OR)
        rest_OI = (whole_OI - (scale * up_OR) @ down_RI).to(weight.dtype)
        weight.data = (rest_OI.T if layer.fan_in_fan_out else rest_OI).contiguous()
        layer.lora_A[_ADAPTER].weight.data, layer.lora_B[_ADAPTER].weight.data = down_RI.clone(), up_OR.clone()
        initial[f'{name}.lora_A.weight'], initial[f'{name}.lora_B.weight'] = down_RI.cpu(), up_OR.cpu()
    llm.initial_adapter = initial


def initial_of(llm: torch.nn.Module) -> dict[str, Initial]:
    """Return what a checkpoint of `llm` has to hold besides what is trained: nothing for most models."""
    initial = getattr(llm, 'initial_adapter', None)
    return dict(initial_adapter=initial) if initial else {}


def ordinary_lora(state: Initial, initial: Initial | None, info: ExportInfo) -> tuple[Initial, ExportInfo]:
    """Return an adapter for the unchanged base, and its description: the difference to `initial`, of twice the rank.

    Without `initial` both stay as they are.

    Raises:
        CheckpointError: The adapter started as a part of the base, and `initial` is missing.
    """
    values = json.loads(info.adapter_config)
    if not initial:
        start = values.get('init_lora_weights')
        if changes_base(start):
            raise CheckpointError(
                f'the checkpoint lacks the initial adapter, without which the weights of lora.init_lora_weights='
                f'{start!r} have no meaning: an earlier version of xtune wrote it. Train again, or install that version'
            )
        return state, info
    made = dict(state)
    for name, first in initial.items():
        parts = (state[name], first) if '.lora_A.' in name else (state[name], -first)
        made[name] = torch.cat(parts, dim=0 if '.lora_A.' in name else 1)
    # alpha / r and alpha / sqrt(r) stay what they were.
    growth = math.sqrt(2) if values.get('use_rslora') else 2
    values.update(
        init_lora_weights=True,
        r=2 * values['r'],
        lora_alpha=growth * values['lora_alpha'],
        rank_pattern={key: 2 * rank for key, rank in (values.get('rank_pattern') or {}).items()},
        alpha_pattern={key: growth * alpha for key, alpha in (values.get('alpha_pattern') or {}).items()},
    )
    return made, replace(info, adapter_config=json.dumps(values, indent=2, sort_keys=True))


def _layers(llm: PeftModel, start: str) -> list[tuple[str, Linear]]:
    """Return the layers with an adapter, by name.

    Raises:
        ModelError: One cannot be split.
    """
    found = [(name, layer) for name, layer in llm.named_modules() if isinstance(layer, LoraLayer)]
    places: dict[int, int] = {}
    for _, parameter in llm.named_parameters(remove_duplicate=False):
        places[id(parameter)] = places.get(id(parameter), 0) + 1
    for name, layer in found:
        why = _refusal(layer)
        if why is None and places.get(id(layer.get_base_layer().weight), 1) > 1:
            why = 'shares its weight with another layer'
        if why is not None:
            short = name.removeprefix('base_model.model.')
            raise ModelError(
                f'lora.init_lora_weights={start!r} takes the start of the adapter out of the weights of linear layers, '
                f'but {short} {why}: change lora.target_modules or lora.r, or set lora.init_lora_weights=True'
            )
    return found


def _refusal(layer: LoraLayer) -> str | None:
    """Return why `layer` cannot be split; None: it can."""
    base = layer.get_base_layer()
    if not isinstance(layer, Linear):
        return f'is an adapter of the kind {type(layer).__name__} on {type(base).__name__}'
    if base.weight.dtype not in _FLOATS or type(base).__name__ not in ('Linear', 'Conv1D'):
        return f'is {type(base).__name__} with weights in {str(base.weight.dtype).removeprefix("torch.")}'
    variant = layer.lora_variant.get(_ADAPTER)
    if variant is not None and not isinstance(variant, DoraLinearVariant):
        return f'has the variant {type(variant).__name__} of LoRA'
    rank, least = layer.r[_ADAPTER], min(base.weight.shape)
    if rank > least:
        return f'has only {least} features, fewer than the rank {rank}'
    return None if layer.scaling[_ADAPTER] > 0 else f'has the scaling {layer.scaling[_ADAPTER]:g}, which is not above 0'


def _factors(whole_OI: torch.Tensor, start: str, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the start of an adapter, [R, I] and [O, R]."""
    if start == 'olora':
        q, r = torch.linalg.qr(whole_OI)
        return r[:rank].contiguous(), q[:, :rank].contiguous()
    if start == 'pissa':
        u, s, vh = torch.linalg.svd(whole_OI, full_matrices=False)
        u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    else:
        u, s, v = torch.svd_lowrank(whole_OI, rank, niter=int(start.rpartition('_')[2]))
        vh = v.T
    root = (s / scale).sqrt()
    return (root[:, None] * vh).contiguous(), (u * root).contiguous()


def _stored(stored: Initial, name: str, layer: Linear) -> torch.Tensor:
    part = layer.lora_A if '.lora_A.' in name else layer.lora_B
    found, wanted = stored.get(name), part[_ADAPTER].weight.shape
    if found is None or found.shape != wanted:
        shape = 'missing' if found is None else tuple(found.shape)
        raise CheckpointError(
            f'the initial adapter in the checkpoint does not fit: {name} is {shape}, {tuple(wanted)} here. Was it '
            'written with another `lora` or another model?'
        )
    return found.clone()  # not a place in a mapped file
