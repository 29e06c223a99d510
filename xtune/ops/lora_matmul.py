"""A frozen linear layer and its LoRA adapter as one operation: x W^T + low B^T, where low = scale x A^T.

peft multiplies x A^T B^T, which is as large as the layer's output, by the scale and adds it to the output; its backward
pass has as many tensors of that size. Here the scale is applied to `low`, which has R columns, and the matmul with W
accumulates into the output of the matmul with B. A 4-bit weight is dequantized for each matmul and dropped.

These are operators of torch, so that torch.compile takes them as they are, and activation checkpointing does not
recompute one whose output nothing needs.

Legend: T tokens, I input features, O output features, R rank.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from .nf4_dequant import dequantize


def lora_matmul(
    x: Tensor,
    weight_parts: list[Tensor],
    layout: list[int],
    quant_type: str,
    bias_O: Tensor | None,
    lora_a_RI: Tensor,
    lora_b_OR: Tensor,
    scale: float,
    lora_x: Tensor | None = None,
) -> Tensor:
    """Return x W^T + bias + scale (lora_x A^T) B^T [..., O], differentiable by x, lora_x, A and B.

    Args:
        x: Input [..., I]; every floating-point argument has its type.
        weight_parts, layout, quant_type: The frozen weight [O, I], as `nf4_dequant.quantized_parts` returns it.
        bias_O: Frozen, or None.
        lora_a_RI: A.
        lora_b_OR: B.
        scale: Scale of the adapter's output.
        lora_x: The adapter's input after dropout [..., I]; None: x.
    """
    x_TI = x.reshape(-1, x.shape[-1])
    if lora_x is None:
        # Detached: the operator returns the gradients of x and A that pass through `low`.
        low_TR, a_RI = linear(x_TI.detach(), lora_a_RI.detach()) * scale, lora_a_RI
    else:
        low_TR, a_RI = linear(lora_x.reshape(x_TI.shape), lora_a_RI) * scale, None
    out_TO = torch.ops.xtune.lora_matmul(x_TI, weight_parts, layout, quant_type, bias_O, low_TR, a_RI, lora_b_OR, scale)
    return out_TO.view(*x.shape[:-1], out_TO.shape[-1])


class _LoraMatmul(torch.autograd.Function):
    """Gradients of x, low and B, and of A if it is given; those of x and A then pass through `low` too."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TI: Tensor,
        layout: list[int],
        quant_type: str,
        bias_O: Tensor | None,
        low_TR: Tensor,
        a_RI: Tensor | None,
        b_OR: Tensor,
        scale: float,
        *weight_parts: Tensor,
    ) -> Tensor:
        ctx.layout, ctx.quant_type, ctx.scale = layout, quant_type, scale
        # Only the gradient of A needs x. With dropout autograd computes it outside of this function.
        ctx.save_for_backward(None if a_RI is None else x_TI, low_TR, a_RI, b_OR, *weight_parts)
        return torch.ops.xtune.lora_matmul_forward(x_TI, weight_parts, layout, quant_type, bias_O, low_TR, b_OR)

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple:
        x_TI, low_TR, a_RI, b_OR, *weight_parts = ctx.saved_tensors
        grad_low_TR, grad_x, grad_a = grad_TO @ b_OR, None, None
        grad_xa_TR = None if a_RI is None else grad_low_TR * ctx.scale  # gradient of x A^T
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.xtune.lora_matmul_grad_x(
                grad_TO, weight_parts, ctx.layout, ctx.quant_type, grad_xa_TR, a_RI
            )
        if a_RI is not None:
            grad_low_TR, grad_a = None, grad_xa_TR.t() @ x_TI
        grad_b = grad_TO.t() @ low_TR
        return grad_x, None, None, None, grad_low_TR, grad_a, grad_b, None, *(None for _ in weight_parts)


# Implementations of the operators, in the order of their schemas' arguments.


def _lora_matmul_autograd(
    x_TI: Tensor,
    weight_parts: list[Tensor],
    layout: list[int],
    quant_type: str,
    bias_O: Tensor | None,
    low_TR: Tensor,
    a_RI: Tensor | None,
    b_OR: Tensor,
    scale: float,
) -> Tensor:
    # Autograd sees tensors among the arguments of a function, not those in a list.
    return _LoraMatmul.apply(x_TI, layout, quant_type, bias_O, low_TR, a_RI, b_OR, scale, *weight_parts)


def _lora_matmul(
    x_TI: Tensor,
    weight_parts: list[Tensor],
    layout: list[int],
    quant_type: str,
    bias_O: Tensor | None,
    low_TR: Tensor,
    a_RI: Tensor | None,
    b_OR: Tensor,
    scale: float,
) -> Tensor:
    return _forward(x_TI, weight_parts, layout, quant_type, bias_O, low_TR, b_OR)


def _forward(
    x_TI: Tensor,
    weight_parts: list[Tensor],
    layout: list[int],
    quant_type: str,
    bias_O: Tensor | None,
    low_TR: Tensor,
    b_OR: Tensor,
) -> Tensor:
    """Return x W^T + bias + low B^T [T, O]."""
    out_TO = linear(low_TR, b_OR, bias_O)  # first, so that the large matmul accumulates into it
    return out_TO.addmm_(x_TI, dequantize(weight_parts, layout, quant_type, x_TI.dtype).t())


def _grad_x(
    grad_TO: Tensor,
    weight_parts: list[Tensor],
    layout: list[int],
    quant_type: str,
    grad_xa_TR: Tensor | None,
    a_RI: Tensor | None,
) -> Tensor:
    """Return the gradient of x [T, I]."""
    weight_OI = dequantize(weight_parts, layout, quant_type, grad_TO.dtype)
    return grad_TO @ weight_OI if a_RI is None else (grad_xa_TR @ a_RI).addmm_(grad_TO, weight_OI)


def _fake_output(x_TI: Tensor, weight_parts: list[Tensor], layout: list[int], *_: Any) -> Tensor:
    return x_TI.new_empty(x_TI.shape[0], layout[0])


def _fake_grad_x(grad_TO: Tensor, weight_parts: list[Tensor], layout: list[int], *_: Any) -> Tensor:
    return grad_TO.new_empty(grad_TO.shape[0], layout[1])


# Not torch.library.custom_op, and the gradients as an autograd function below the differentiable operator: either would
# take 50 us more a call, and a step of a small model has hundreds of calls in a tenth of a second.
_LIBRARY = torch.library.Library('xtune', 'FRAGMENT')
_WEIGHT = 'Tensor[] weight_parts, int[] layout, str quant_type'
_LIBRARY.define(
    f'lora_matmul(Tensor x, {_WEIGHT}, Tensor? bias, Tensor low, Tensor? a, Tensor b, float scale) -> Tensor'
)
_LIBRARY.define(f'lora_matmul_forward(Tensor x, {_WEIGHT}, Tensor? bias, Tensor low, Tensor b) -> Tensor')
_LIBRARY.define(f'lora_matmul_grad_x(Tensor grad, {_WEIGHT}, Tensor? grad_xa, Tensor? a) -> Tensor')
_LIBRARY.impl('lora_matmul', _lora_matmul_autograd, 'Autograd')
_LIBRARY.impl('lora_matmul', _lora_matmul, 'CompositeExplicitAutograd')
_LIBRARY.impl('lora_matmul_forward', _forward, 'CompositeExplicitAutograd')
_LIBRARY.impl('lora_matmul_grad_x', _grad_x, 'CompositeExplicitAutograd')
torch.library.register_fake('xtune::lora_matmul', _fake_output, lib=_LIBRARY)
torch.library.register_fake('xtune::lora_matmul_forward', _fake_output, lib=_LIBRARY)
torch.library.register_fake('xtune::lora_matmul_grad_x', _fake_grad_x, lib=_LIBRARY)
