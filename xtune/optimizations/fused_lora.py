"""Fuses peft's LoRA layers with their base layer; see `ops/lora_matmul.py`."""

from functools import lru_cache
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.nn.functional import linear

from ..methods.lora_targets import is_linear
from ..ops.lora_matmul import lora_matmul
from ..ops.nf4_dequant import quantized_parts


class _FusedLora:
    """Mixin in front of a LoRA layer's class: in training the same output in fewer passes over memory.

    `base_is_matmul`: The base layer is one matmul with a frozen weight.
    """

    base_is_matmul = False

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output [..., O] for its input [..., I]."""
        if args or kwargs or not self._trains_one_adapter():
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        lora_a_RI, lora_b_OR = self.lora_A[name].weight, self.lora_B[name].weight
        if not x.dtype == lora_a_RI.dtype == lora_b_OR.dtype:
            return super().forward(x)
        dropout = self.lora_dropout[name]
        lora_x = None if isinstance(dropout, torch.nn.Identity) else dropout(x)
        base, scale = self.base_layer, self.scaling[name]
        weight = quantized_parts(base.weight) if self.base_is_matmul else None
        if weight is None:
            return base(x) + linear(linear(x if lora_x is None else lora_x, lora_a_RI) * scale, lora_b_OR)
        return lora_matmul(x, *weight, base.bias, lora_a_RI, lora_b_OR, scale, lora_x)

    def _trains_one_adapter(self) -> bool:
        return self.training and not (self.disable_adapters or self.merged) and len(self.active_adapters) == 1


def fuse_lora(llm: torch.nn.Module, dtype: torch.dtype) -> int:
    """Fuse the plain LoRA layers of `llm` with their base layers, in place; return how many there are.

    Args:
        llm: The model.
        dtype: The compute type, which the adapters have.
    """
    count = 0
    for layer in llm.modules():
        if _is_plain_lora(layer):
            layer.__class__ = _with_fused_lora(type(layer))
            layer.base_is_matmul = _is_matmul(layer.base_layer, dtype)
            count += 1
    return count


def has_custom_functions(llm: torch.nn.Module) -> bool:
    """Return whether `llm` has linear layers with a custom autograd function, such as quantized ones without a fused
    adapter."""
    fused = {id(layer.base_layer) for layer in llm.modules() if isinstance(layer, _FusedLora) and layer.base_is_matmul}
    linears = (layer for layer in llm.modules() if isinstance(layer, torch.nn.Linear))
    return any(type(layer) is not torch.nn.Linear and id(layer) not in fused for layer in linears)


def _is_plain_lora(layer: torch.nn.Module) -> bool:
    if not isinstance(layer, LoraLayer) or type(layer).__name__ not in ('Linear', 'Linear4bit', 'Linear8bitLt'):
        return False
    if not is_linear(layer.base_layer):
        return False
    return not (layer.lora_variant or any(layer.lora_bias.values()) or layer.fan_in_fan_out)


def _is_matmul(base: torch.nn.Module, dtype: torch.dtype) -> bool:
    if any(p.requires_grad for p in base.parameters()):
        return False
    if type(base) is torch.nn.Linear:
        return base.weight.dtype == dtype
    # By name, without importing bitsandbytes.
    return type(base).__name__ == 'Linear4bit' and base.compute_dtype in (None, dtype)


@lru_cache
def _with_fused_lora(layer_class: type) -> type:
    # The same name: peft looks some layers up by it.
    names = {'__module__': layer_class.__module__, '__doc__': layer_class.__doc__}
    return type(layer_class.__name__, (_FusedLora, layer_class), names)
