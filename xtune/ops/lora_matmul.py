"""A frozen linear layer and its LoRA as one operation: x W^T + low B^T, where low = s x A^T has r columns.

peft multiplies x A^T B^T, which is as large as the layer's output, by s and adds it to that output; its backward pass
has as many tensors of that size. Here s is put on `low`, and the product with W is added to that with B where it lies.
A weight in 4 bits is unpacked for each product and dropped. The operations are custom ones, so that torch.compile takes
them as they are, and leaves one out of what is computed again if nothing needs its result.

Legend: T tokens, I inputs, O outputs, R the rank r.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from .nf4_dequant import unpacked


def adapted_product(
    x: Tensor,
    parts: list[Tensor],
    layout: list[int],
    kind: str,
    bias_O: Tensor | None,
    down_RI: Tensor,
    up_OR: Tensor,
    scale: float,
    own: Tensor | None = None,
) -> Tensor:
    """Return x W^T + bias + scale (y A^T) B^T [..., O], differentiable by x, y, A and B.

    Args:
        x: Input [..., I]; all that is computed with has its type.
        parts: The frozen weight [O, I], or what it is packed into, see `unpacking`.
        layout, kind: How it is packed.
        bias_O: Frozen, or None.
        down_RI: A.
        up_OR: B.
        scale: What the adapter's output is multiplied by.
        own: y, the adapter's own input of the same shape, as dropout makes it; None: x.
    """
    x_TI = x.reshape(-1, x.shape[-1])
    if own is None:
        low_TR = linear(x_TI.detach(), down_RI.detach()) * scale  # its gradients come with those of x and A
        out_TO = torch.ops.xtune.adapted_product(x_TI, parts, layout, kind, bias_O, low_TR, down_RI, up_OR, scale)
    else:
        low_TR = linear(own.reshape(x_TI.shape), down_RI) * scale
        out_TO = torch.ops.xtune.adapted_product(x_TI, parts, layout, kind, bias_O, low_TR, None, up_OR, scale)
    return out_TO.view(*x.shape[:-1], out_TO.shape[-1])


def _adapted(
    x_TI: Tensor,
    parts: list[Tensor],
    layout: list[int],
    kind: str,
    bias_O: Tensor | None,
    low_TR: Tensor,
    up_OR: Tensor,
) -> Tensor:
    out_TO = linear(low_TR, up_OR, bias_O)  # first, so that the large product adds it while it computes
    return out_TO.addmm_(x_TI, unpacked(parts, layout, kind, x_TI.dtype).t())


def _slope(
    slope_TO: Tensor,
    parts: list[Tensor],
    layout: list[int],
    kind: str,
    low_slope_TR: Tensor | None,
    down_RI: Tensor | None,
) -> Tensor:
    """Return the gradient of x [T, I]."""
    weight_OI = unpacked(parts, layout, kind, slope_TO.dtype)
    return slope_TO @ weight_OI if down_RI is None else (low_slope_TR @ down_RI).addmm_(slope_TO, weight_OI)


class _Adapted(torch.autograd.Function):
    """The gradients of the operation; those of x and A also through `low`, if A is given."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, *rest: Any) -> Tensor:
        layout, kind, _, low_TR, down_RI, up_OR, scale, *parts = rest
        ctx.layout, ctx.kind, ctx.scale = layout, kind, scale
        # Of these only the gradient of A needs x; where the adapter has an input of its own, that is not ours.
        ctx.save_for_backward(None if down_RI is None else x_TI, low_TR, down_RI, up_OR, *parts)
        return torch.ops.xtune.adapted_forward(x_TI, parts, *rest[:4], up_OR)

    @staticmethod
    def backward(ctx: Any, slope_TO: Tensor) -> tuple:
        x_TI, low_TR, down_RI, up_OR, *parts = ctx.saved_tensors
        low_slope_TR, x, down = slope_TO @ up_OR, None, None
        through_TR = None if down_RI is None else low_slope_TR * ctx.scale
        if ctx.needs_input_grad[0]:
            x = torch.ops.xtune.adapted_slope(slope_TO, parts, ctx.layout, ctx.kind, through_TR, down_RI)
        if down_RI is not None:
            low_slope_TR, down = None, through_TR.t() @ x_TI
        return x, None, None, None, low_slope_TR, down, slope_TO.t() @ low_TR, None, *(None for _ in parts)


# Not `custom_op`, and gradients below the operation that is differentiable: both would take 50 us a call, and a step of
# a tenth of a second has hundreds of calls in a small model.
_LIBRARY = torch.library.Library('xtune', 'FRAGMENT')
_PACKED = 'Tensor[] parts, int[] layout, str kind'
_OPERATIONS = {
    'adapted_product': f'Tensor x, {_PACKED}, Tensor? bias, Tensor low, Tensor? down, Tensor up, float scale',
    'adapted_forward': f'Tensor x, {_PACKED}, Tensor? bias, Tensor low, Tensor up',
    'adapted_slope': f'Tensor slope, {_PACKED}, Tensor? low_slope, Tensor? down',
}
for _name, _arguments in _OPERATIONS.items():
    _LIBRARY.define(f'{_name}({_arguments}) -> Tensor')
_LIBRARY.impl('adapted_product', lambda x, parts, *rest: _Adapted.apply(x, *rest, *parts), 'Autograd')
_LIBRARY.impl('adapted_product', lambda *all: _adapted(*all[:6], all[7]), 'CompositeExplicitAutograd')
_LIBRARY.impl('adapted_forward', _adapted, 'CompositeExplicitAutograd')
_LIBRARY.impl('adapted_slope', _slope, 'CompositeExplicitAutograd')
for _name in _OPERATIONS:
    torch.library.register_fake(
        f'xtune::{_name}',
        lambda x, _, layout, *__, at=int(_name == 'adapted_slope'): x.new_empty(x.shape[0], layout[at]),
        lib=_LIBRARY,
    )
