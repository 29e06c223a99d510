"""PiSSA and OLoRA: initialize LoRA from the base weights and subtract it from the base.

A frozen weight W becomes the residual W - s B0 A0, and the adapter starts at A0, B0 (s is the LoRA scaling), so the
model computes the same before the first step. The trained weight is W + s (B A - B0 A0). The model and each checkpoint
keep A0 and B0, so a resumed run has exactly the same base, and an export is a plain LoRA of twice the rank on W.

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
InitialAdapter = dict[str, torch.Tensor]  # A0 and B0 by their names in an adapter file


def subtract_initial_adapter(
    llm: PeftModel,
    init: str,
    stored: InitialAdapter | None = None,
    broadcast: Callable[[torch.Tensor], Any] | None = None,
) -> None:
    """Initialize the adapter from the base and subtract it from the base, in place.

    `llm.initial_adapter` keeps A0 and B0 (float32, on the CPU). Weights on the meta device have no values: their layers
    are only checked.

    Args:
        llm: A model with a new adapter.
        init: 'pissa', 'pissa_niter_N' or 'olora'.
        stored: A0 and B0 of the checkpoint that is resumed.
        broadcast: Overwrites a tensor in place with that of rank 0.

    Raises:
        ModelError: A layer does not support the initialization.
        CheckpointError: `stored` belongs to another adapter.
    """
    initial: InitialAdapter = {}
    for name, layer in _lora_layers(llm, init):
        weight, scale = layer.get_base_layer().weight, layer.scaling[_ADAPTER]
        if weight.is_meta:
            continue
        weight_OI = weight.data.float().T if layer.fan_in_fan_out else weight.data.float()
        if stored is None:
            a_RI, b_OR = _initial_factors(weight_OI, init, layer.r[_ADAPTER], scale)
        else:
            a_RI, b_OR = (_stored_factor(stored, f'{name}.lora_{factor}.weight', layer) for factor in 'AB')
            a_RI, b_OR = a_RI.to(weight.device), b_OR.to(weight.device)
        if broadcast is not None:
            broadcast(a_RI), broadcast(b_OR)
        residual_OI = (weight_OI - (scale * b_OR) @ a_RI).to(weight.dtype)
        weight.data = (residual_OI.T if layer.fan_in_fan_out else residual_OI).contiguous()
        layer.lora_A[_ADAPTER].weight.data, layer.lora_B[_ADAPTER].weight.data = a_RI.clone(), b_OR.clone()
        initial[f'{name}.lora_A.weight'], initial[f'{name}.lora_B.weight'] = a_RI.cpu(), b_OR.cpu()
    llm.initial_adapter = initial


def initial_adapter_state(llm: torch.nn.Module) -> dict[str, InitialAdapter]:
    """Return the checkpoint entry of the initial adapter; {} for a model without one, which is the usual case."""
    initial = getattr(llm, 'initial_adapter', None)
    return dict(initial_adapter=initial) if initial else {}


def as_plain_lora(
    state: InitialAdapter, initial: InitialAdapter | None, info: ExportInfo
) -> tuple[InitialAdapter, ExportInfo]:
    """Return an adapter for the unchanged base, of twice the rank, and its export info.

    Its product is that of `state` minus that of `initial`. Without `initial`, `state` and `info` are returned.

    Raises:
        CheckpointError: The adapter was initialized from the base, and `initial` is missing.
    """
    values = json.loads(info.adapter_config)
    if not initial:
        init = values.get('init_lora_weights')
        if changes_base(init):
            raise CheckpointError(
                f'the checkpoint lacks the initial adapter, without which the weights of lora.init_lora_weights='
                f'{init!r} cannot be exported: an earlier version of xtune wrote it. Train again, or install that '
                'version'
            )
        return state, info
    plain = dict(state)
    for name, first in initial.items():
        factors = (state[name], first) if '.lora_A.' in name else (state[name], -first)
        plain[name] = torch.cat(factors, dim=0 if '.lora_A.' in name else 1)
    # The scaling, alpha / r or alpha / sqrt(r), stays the same.
    growth = math.sqrt(2) if values.get('use_rslora') else 2
    values.update(
        init_lora_weights=True,
        r=2 * values['r'],
        lora_alpha=growth * values['lora_alpha'],
        rank_pattern={key: 2 * rank for key, rank in (values.get('rank_pattern') or {}).items()},
        alpha_pattern={key: growth * alpha for key, alpha in (values.get('alpha_pattern') or {}).items()},
    )
    return plain, replace(info, adapter_config=json.dumps(values, indent=2, sort_keys=True))


def _lora_layers(llm: PeftModel, init: str) -> list[tuple[str, Linear]]:
    """Return name and module of each LoRA layer.

    Raises:
        ModelError: One does not support the initialization `init`.
    """
    layers = [(name, layer) for name, layer in llm.named_modules() if isinstance(layer, LoraLayer)]
    uses: dict[int, int] = {}
    for _, parameter in llm.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for name, layer in layers:
        problem = _problem(layer)
        if problem is None and uses.get(id(layer.get_base_layer().weight), 1) > 1:
            problem = 'shares its weight with another layer'
        if problem is not None:
            short = name.removeprefix('base_model.model.')
            raise ModelError(
                f'lora.init_lora_weights={init!r} subtracts the initial adapter from the weights of linear layers, but '
                f'{short} {problem}: change lora.target_modules or lora.r, or set lora.init_lora_weights=True'
            )
    return layers


def _problem(layer: LoraLayer) -> str | None:
    """Return why `layer` cannot be initialized from its base weight; None if it can."""
    base = layer.get_base_layer()
    if not isinstance(layer, Linear):
        return f'is an adapter of type {type(layer).__name__} on {type(base).__name__}'
    if base.weight.dtype not in _FLOATS or type(base).__name__ not in ('Linear', 'Conv1D'):
        return f'is {type(base).__name__} with weights in {str(base.weight.dtype).removeprefix("torch.")}'
    variant = layer.lora_variant.get(_ADAPTER)
    if variant is not None and not isinstance(variant, DoraLinearVariant):
        return f'has the LoRA variant {type(variant).__name__}'
    rank, max_rank = layer.r[_ADAPTER], min(base.weight.shape)
    if rank > max_rank:
        return f'has only {max_rank} features, fewer than the rank {rank}'
    return None if layer.scaling[_ADAPTER] > 0 else f'has the scaling {layer.scaling[_ADAPTER]:g}, which is not above 0'


def _initial_factors(weight_OI: torch.Tensor, init: str, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A0 [R, I] and B0 [O, R]."""
    if init == 'olora':
        q, r = torch.linalg.qr(weight_OI)
        return r[:rank].contiguous(), q[:, :rank].contiguous()
    if init == 'pissa':
        u, s, vh = torch.linalg.svd(weight_OI, full_matrices=False)
        u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    else:
        u, s, v = torch.svd_lowrank(weight_OI, rank, niter=int(init.rpartition('_')[2]))
        vh = v.T
    root = (s / scale).sqrt()
    return (root[:, None] * vh).contiguous(), (u * root).contiguous()


def _stored_factor(stored: InitialAdapter, name: str, layer: Linear) -> torch.Tensor:
    modules = layer.lora_A if '.lora_A.' in name else layer.lora_B
    factor, expected = stored.get(name), modules[_ADAPTER].weight.shape
    if factor is None or factor.shape != expected:
        shape = 'missing' if factor is None else tuple(factor.shape)
        raise CheckpointError(
            f'the initial adapter in the checkpoint does not fit: {name} is {shape}, {tuple(expected)} here. Was it '
            'written with another `lora` or another model?'
        )
    return factor.clone()  # not a view of a memory-mapped file
