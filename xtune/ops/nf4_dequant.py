"""Weights in 4 bits as bitsandbytes packs them, unpacked: on GPUs with Triton by one kernel instead of three.

Two values lie in a byte, the first in its high half: each is an index into 16 numbers (NF4, FP4), which the largest
value of its block multiplies. With nested scales that is an index of 8 bits too, into 256 numbers, times the scale of a
block of blocks, plus an offset (Dettmers et al., QLoRA, 2023).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import compilation

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs comes without it
    triton = None

# Bytes that one program of the kernel unpacks.
_SIZE = 1024
# Of a weight: [O, I, values in a block, scales in a block], 0 where there are no blocks. Never empty: torch takes an
# empty list for one of tensors.
Layout = Sequence[int]


def packed(weight: Tensor) -> tuple[list[Tensor], list[int], str] | None:
    """Return the parts, layout and kind ('nf4', 'fp4', '': not packed) of a weight; None: in a form for chat on CPUs.

    Parts: the weight; if packed also its scales and 16 numbers; if nested also the scales' own, 256 numbers and offset.
    """
    state = getattr(weight, 'quant_state', None)
    if state is None:
        return [weight], [*weight.shape, 0, 0], ''
    if getattr(state, 'packing_format_for_cpu', False):
        return None
    parts, layout = [weight.detach(), state.absmax, state.code], [*state.shape, state.blocksize, 0]
    if state.nested:
        parts += [state.state2.absmax, state.state2.code, state.offset]
        layout[-1] = state.state2.blocksize
    return parts, layout, state.quant_type


def stay_trainable(llm: torch.nn.Module) -> None:
    """Let weights in 4 bits stay in the form that gradients go through.

    On CPUs with instructions for bf16, bitsandbytes else brings them into the form for chat in the first call without
    gradients, as a trial or a validation is. Products with it have none.
    """
    for layer in _with_form_for_chat(llm):
        layer.support_avx512bf16_for_cpu = False


def keep_what_does_not_fit(llm: torch.nn.Module) -> None:
    """Let weights that the form for chat has no room for stay as they are: it fails unless they have a multiple of 32
    rows, each of whole blocks."""
    for layer in _with_form_for_chat(llm):
        state = layer.weight.quant_state
        if state is not None and (state.shape[0] % 32 or state.shape[1] % state.blocksize):
            layer.support_avx512bf16_for_cpu = False


def _with_form_for_chat(llm: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer for layer in llm.modules() if hasattr(layer, 'support_avx512bf16_for_cpu')]


def unpacked(parts: list[Tensor], layout: Layout, kind: str, dtype: torch.dtype) -> Tensor:
    """Return the weight [O, I] in `dtype`."""
    if not kind:
        return parts[0]
    if triton is not None and parts[0].is_cuda and compilation.works(parts[0].device):
        return by_kernel(parts, layout, dtype)
    from bitsandbytes.functional import QuantState, dequantize_4bit

    weight, absmax, code, *nested = parts
    *shape, block, block_of_scales = layout
    inner, offset = None, None
    if nested:
        inner = QuantState(absmax=nested[0], code=nested[1], blocksize=block_of_scales, dtype=torch.float32)
        offset = nested[2]
    return dequantize_4bit(weight, QuantState(absmax, torch.Size(shape), code, block, kind, dtype, offset, inner))


def by_kernel(parts: list[Tensor], layout: Layout, dtype: torch.dtype) -> Tensor:
    """Return the same, unpacked by the kernel below."""
    weight, absmax, code, *nested = parts
    rows, width, block, block_of_scales = layout
    out_OI = torch.empty(rows, width, dtype=dtype, device=weight.device)
    scales, scales_code, offset = nested or (absmax, code, absmax)
    _unpack[(triton.cdiv(rows * width, 2 * _SIZE),)](
        weight, absmax, code, scales, scales_code, offset, out_OI, rows * width, block, block_of_scales, _SIZE
    )
    return out_OI


if triton is not None:

    @triton.jit
    def _unpack(
        weight,
        absmax,
        code,
        scales,
        scales_code,
        offset,
        out,
        count,
        BLOCK: tl.constexpr,
        SCALES: tl.constexpr,
        SIZE: tl.constexpr,
    ):
        first = tl.program_id(0).to(tl.int64) * SIZE
        at = first + tl.arange(0, SIZE)
        there = at * 2 < count
        byte = tl.load(weight + at, mask=there, other=0).to(tl.int32)
        block = at * 2 // BLOCK
        scale = tl.load(absmax + block, mask=there, other=0)
        if SCALES:  # nested
            scale = tl.load(scales_code + scale.to(tl.int32)) * tl.load(scales + block // SCALES, mask=there, other=0)
            scale += tl.load(offset)
        both = tl.interleave(tl.load(code + (byte >> 4)) * scale, tl.load(code + (byte & 15)) * scale)
        to = first * 2 + tl.arange(0, 2 * SIZE)
        tl.store(out + to, both.to(out.dtype.element_ty), mask=to < count)
