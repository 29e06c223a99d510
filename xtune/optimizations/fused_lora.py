"""Lets peft's LoRA layers compute base and adapter together; see `adapted_product`."""

from functools import lru_cache
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.nn.functional import linear

from ..methods.lora_targets import is_linear
from ..ops.lora_matmul import adapted_product
from ..ops.nf4_dequant import packed


class _Fused:
    """Goes before the class of a LoRA layer: what it computes in training is the same in fewer passes over memory.

    `is_product` says that the base is one product with a frozen weight.
    """

    is_product = False

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output [..., O] for its input [..., I]."""
        if args or kwargs or not self._trains_one():
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        down_RI, up_OR = self.lora_A[name].weight, self.lora_B[name].weight
        if not x.dtype == down_RI.dtype == up_OR.dtype:
            return super().forward(x)
        dropout = self.lora_dropout[name]
        own = None if isinstance(dropout, torch.nn.Identity) else dropout(x)
        base, scale = self.base_layer, self.scaling[name]
        weight = packed(base.weight) if self.is_product else None
        if weight is None:
            return base(x) + linear(linear(x if own is None else own, down_RI) * scale, up_OR)
        return adapted_product(x, *weight, base.bias, down_RI, up_OR, scale, own)

    def _trains_one(self) -> bool:
        return self.training and not (self.disable_adapters or self.merged) and len(self.active_adapters) == 1


def fuse_adapters(llm: torch.nn.Module, dtype: torch.dtype) -> int:
    """Let the LoRA layers of `llm` compute with their base, as far as they are plain ones; return how many do.

    Args:
        llm: The model.
        dtype: The compute type, which adapters have.
    """
    count = 0
    for layer in llm.modules():
        if _is_plain(layer):
            layer.__class__ = _fused(type(layer))
            layer.is_product = _is_product(layer.base_layer, dtype)
            count += 1
    return count


def has_functions(llm: torch.nn.Module) -> bool:
    """Tell whether `llm` has linear layers with an autograd function of their own, as quantised ones have that no
    adapter is fused with."""
    fused = {id(layer.base_layer) for layer in llm.modules() if isinstance(layer, _Fused) and layer.is_product}
    linears = (layer for layer in llm.modules() if isinstance(layer, torch.nn.Linear))
    return any(type(layer) is not torch.nn.Linear and id(layer) not in fused for layer in linears)


def _is_plain(layer: torch.nn.Module) -> bool:
    if not isinstance(layer, LoraLayer) or type(layer).__name__ not in ('Linear', 'Linear4bit', 'Linear8bitLt'):
        return False
    if not is_linear(layer.base_layer):
        return False
    return not (layer.lora_variant or any(layer.lora_bias.values()) or layer.fan_in_fan_out)


def _is_product(base: torch.nn.Module, dtype: torch.dtype) -> bool:
    if any(p.requires_grad for p in base.parameters()):
        return False
    if type(base) is torch.nn.Linear:
        return base.weight.dtype == dtype
    # By name, so that bitsandbytes is not imported for this.
    return type(base).__name__ == 'Linear4bit' and base.compute_dtype in (None, dtype)


@lru_cache
def _fused(kind: type) -> type:
    # The same name: peft looks some layers up by it.
    return type(kind.__name__, (_Fused, kind), {'__module__': kind.__module__, '__doc__': kind.__doc__})
