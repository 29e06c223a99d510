"""Dequantization of the 4-bit weights of bitsandbytes: on GPUs with Triton by one kernel instead of three.

A byte has two values, the first in its high half. Each is an index into a code book of 16 numbers (NF4 or FP4), and is
multiplied by the absolute maximum of its block. With double quantization this maximum is an 8-bit index too: into 256
numbers, times the scale of a block of blocks, plus an offset (Dettmers et al., QLoRA, 2023).
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

# Bytes that one program of the kernel dequantizes.
_BYTES_PER_PROGRAM = 1024
# Of a weight: [O, I, values in a block, absolute maxima in a block], 0 where there are no blocks. Never empty: torch
# takes an empty list for one of tensors.
Layout = Sequence[int]


def quantized_parts(weight: Tensor) -> tuple[list[Tensor], list[int], str] | None:
    """Return the tensors, the layout and the type ('nf4', 'fp4', '': not quantized) of a weight.

    The tensors: the weight; if it is quantized also the absolute maxima and the code book; with double quantization
    also the scales, the code book and the offset of the absolute maxima.

    Returns:
        None for a weight in the CPU inference format, which has no gradients.
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


def disable_cpu_inference_format(llm: torch.nn.Module) -> None:
    """Keep the 4-bit weights of `llm` in the format that has gradients.

    On CPUs with bf16 instructions, bitsandbytes otherwise converts them to an inference format in the first call
    without gradients, such as a parity check or a validation. Matmuls with that format have no backward pass.
    """
    for layer in _layers_with_cpu_inference_format(llm):
        layer.support_avx512bf16_for_cpu = False


def disable_cpu_inference_format_of_odd_shapes(llm: torch.nn.Module) -> None:
    """Keep 4-bit weights that the CPU inference format cannot represent in the usual one.

    It fails unless the output features are a multiple of 32 and each row has a whole number of blocks.
    """
    for layer in _layers_with_cpu_inference_format(llm):
        state = layer.weight.quant_state
        if state is not None and (state.shape[0] % 32 or state.shape[1] % state.blocksize):
            layer.support_avx512bf16_for_cpu = False


def _layers_with_cpu_inference_format(llm: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer for layer in llm.modules() if hasattr(layer, 'support_avx512bf16_for_cpu')]


def dequantize(parts: list[Tensor], layout: Layout, quant_type: str, dtype: torch.dtype) -> Tensor:
    """Return the weight [O, I] in `dtype`; for the other arguments see `quantized_parts`."""
    if not quant_type:
        return parts[0]
    if triton is not None and parts[0].is_cuda and compilation.can_compile(parts[0].device):
        return dequantize_by_triton(parts, layout, dtype)
    from bitsandbytes.functional import QuantState, dequantize_4bit

    weight, absmax, code, *nested = parts
    *shape, block_size, absmax_block_size = layout
    absmax_state, offset = None, None
    if nested:
        absmax_state = QuantState(absmax=nested[0], code=nested[1], blocksize=absmax_block_size, dtype=torch.float32)
        offset = nested[2]
    state = QuantState(absmax, torch.Size(shape), code, block_size, quant_type, dtype, offset, absmax_state)
    return dequantize_4bit(weight, state)


def dequantize_by_triton(parts: list[Tensor], layout: Layout, dtype: torch.dtype) -> Tensor:
    """Return the same, dequantized by the Triton kernel; the weight is on a GPU."""
    weight, absmax, code, *nested = parts
    out_features, in_features, block_size, absmax_block_size = layout
    count = out_features * in_features
    out_OI = torch.empty(out_features, in_features, dtype=dtype, device=weight.device)
    absmax_scales, absmax_code, absmax_offset = nested or (absmax, code, absmax)  # not read without nesting
    _dequantize_kernel[(triton.cdiv(count, 2 * _BYTES_PER_PROGRAM),)](
        weight,
        absmax,
        code,
        absmax_scales,
        absmax_code,
        absmax_offset,
        out_OI,
        count,
        block_size,
        absmax_block_size,
        _BYTES_PER_PROGRAM,
    )
    return out_OI


if triton is not None:

    @triton.jit
    def _dequantize_kernel(
        weight,
        absmax,
        code,
        absmax_scales,
        absmax_code,
        absmax_offset,
        out,
        count,
        BLOCK: tl.constexpr,
        ABSMAX_BLOCK: tl.constexpr,
        BYTES: tl.constexpr,
    ):
        first_byte = tl.program_id(0).to(tl.int64) * BYTES
        offsets = first_byte + tl.arange(0, BYTES)
        mask = offsets * 2 < count
        byte = tl.load(weight + offsets, mask=mask, other=0).to(tl.int32)
        block = offsets * 2 // BLOCK
        scale = tl.load(absmax + block, mask=mask, other=0)
        if ABSMAX_BLOCK:  # double quantization
            absmax_scale = tl.load(absmax_scales + block // ABSMAX_BLOCK, mask=mask, other=0)
            scale = tl.load(absmax_code + scale.to(tl.int32)) * absmax_scale
            scale += tl.load(absmax_offset)
        values = tl.interleave(tl.load(code + (byte >> 4)) * scale, tl.load(code + (byte & 15)) * scale)
        out_offsets = first_byte * 2 + tl.arange(0, 2 * BYTES)
        tl.store(out + out_offsets, values.to(out.dtype.element_ty), mask=out_offsets < count)
