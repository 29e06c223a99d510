"""A frozen linear layer and its LoRA as one operation: x W^T + low B^T, where low = s x A^T has r columns.

peft multiplies x A^T B^T, which is as large as the layer's output, by s and adds it to that output; its backward pass
has as many tensors of that size. Here s is put on `low`, and the second product is added to the first where that lies.
A weight in 4 bits is unpacked for each product and dropped. The operations are custom ones, so that torch.compile takes
them as they are, and leaves one out of what is computed again if nothing needs its result.

Legend: T tokens, I inputs, O outputs, R the rank r.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

# Of a weight: [O, I, values in a block, scales in a block], 0 where there are no blocks. Never empty: torch takes an
# empty list for one of tensors.
Layout = Sequence[int]


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
        parts: The frozen weight [O, I], or what it is packed into, see `packed`.
        layout, kind: How it is packed.
        bias_O: Frozen, or None.
        down_RI: A.
        up_OR: B.
        scale: What the adapter's output is multiplied by.
        own: y, the adapter's own input of the same shape, as dropout makes it; None: x.
    """
    x_TI = x.reshape(-1, x.shape[-1])
    if own is None:
        low_TR = linear(x_TI.detach(), down_RI.detach()) * scale  # `_backward` goes through it
        out_TO = torch.ops.xtune.adapted_product(x_TI, parts, layout, kind, bias_O, low_TR, down_RI, up_OR, scale)
    else:
        low_TR = linear(own.reshape(x_TI.shape), down_RI) * scale
        out_TO = torch.ops.xtune.adapted_product(x_TI, parts, layout, kind, bias_O, low_TR, None, up_OR, scale)
    return out_TO.view(*x.shape[:-1], out_TO.shape[-1])


def packed(weight: Tensor) -> tuple[list[Tensor], list[int], str] | None:
    """Return the parts, layout and kind of a weight, which bitsandbytes may have packed to 4 bits; None: in a form for
    chat on CPUs."""
    state = getattr(weight, 'quant_state', None)
    if state is None:
        return [weight], [*weight.shape, 0, 0], ''
    if getattr(state, 'packing_format_for_cpu', False):
        return None
    parts, layout = [weight.detach(), state.absmax], [*state.shape, state.blocksize, 0]
    if state.nested:
        parts += [state.state2.absmax, state.state2.code, state.offset]
        layout[-1] = state.state2.blocksize
    return parts, layout, state.quant_type


def unpacked(parts: list[Tensor], layout: Layout, kind: str, dtype: torch.dtype) -> Tensor:
    """Return the weight [O, I] in `dtype`."""
    if not kind:
        return parts[0]
    from bitsandbytes.functional import QuantState, dequantize_4bit

    weight, absmax, *nested = parts
    *shape, block, block_of_scales = layout
    inner, offset = None, None
    if nested:
        inner = QuantState(absmax=nested[0], code=nested[1], blocksize=block_of_scales, dtype=torch.float32)
        offset = nested[2]
    state = QuantState(absmax, torch.Size(shape), None, block, kind, dtype, offset, inner)
    return dequantize_4bit(weight, state)


def _adapted(
    x_TI: Tensor,
    parts: list[Tensor],
    layout: list[int],
    kind: str,
    bias_O: Tensor | None,
    low_TR: Tensor,
    down_RI: Tensor | None,
    up_OR: Tensor,
    scale: float,
) -> Tensor:
    weight_OI = unpacked(parts, layout, kind, x_TI.dtype)
    return linear(x_TI, weight_OI, bias_O).addmm_(low_TR, up_OR.t())


def _slope(
    slope_TO: Tensor,
    parts: list[Tensor],
    layout: list[int],
    kind: str,
    low_slope_TR: Tensor | None,
    down_RI: Tensor | None,
) -> Tensor:
    """Return the gradient of x [T, I]."""
    found_TI = slope_TO @ unpacked(parts, layout, kind, slope_TO.dtype)
    return found_TI if down_RI is None else found_TI.addmm_(low_slope_TR, down_RI)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x_TI, parts, ctx.layout, ctx.kind, _, low_TR, down_RI, up_OR, ctx.scale = inputs
    # Only A needs x again, and it is not ours to change where the adapter has an input of its own.
    ctx.save_for_backward(None if down_RI is None else x_TI, low_TR, down_RI, up_OR, *parts)


def _backward(ctx: Any, slope_TO: Tensor) -> tuple:
    x_TI, low_TR, down_RI, up_OR, *parts = ctx.saved_tensors
    low_slope_TR = slope_TO @ up_OR
    up = slope_TO.t() @ low_TR
    through_TR = low_slope_TR * ctx.scale
    x, down = None, None
    if ctx.needs_input_grad[0]:
        x = torch.ops.xtune.adapted_slope(
            slope_TO, parts, ctx.layout, ctx.kind, None if down_RI is None else through_TR, down_RI
        )
    if down_RI is not None:
        down = through_TR.t() @ x_TI
    return x, [None] * len(parts), None, None, None, None if down_RI is not None else low_slope_TR, down, up, None


# Not `custom_op`, which takes 50 us a call: small models have hundreds of calls in a step of a tenth of a second.
_LIBRARY = torch.library.Library('xtune', 'FRAGMENT')
_PACKED = 'Tensor[] parts, int[] layout, str kind'
_LIBRARY.define(
    f'adapted_product(Tensor x, {_PACKED}, Tensor? bias, Tensor low, Tensor? down, Tensor up, float scale) -> Tensor'
)
_LIBRARY.define(f'adapted_slope(Tensor slope, {_PACKED}, Tensor? low_slope, Tensor? down) -> Tensor')
for _name, _function, _width in (('adapted_product', _adapted, 0), ('adapted_slope', _slope, 1)):
    _LIBRARY.impl(_name, _function, 'CompositeExplicitAutograd')
    torch.library.register_fake(
        f'xtune::{_name}', lambda x, parts, layout, *_, at=_width: x.new_empty(x.shape[0], layout[at]), lib=_LIBRARY
    )
torch.library.register_autograd('xtune::adapted_product', _backward, setup_context=_keep, lib=_LIBRARY)
