"""Matmuls in float8 with one scale per row of each operand: the one place that asks torch for them.

`torch._scaled_mm` is used as long as torch has it: torch.compile autotunes its kernels in every release that xtune
supports. Without it, the public `torch.nn.functional.scaled_mm` does the same. The tests compare the two.

Legend: M, N rows of the operands, K summed dimension.
"""

import torch

from ..compat.torch_private import SCALED_MM

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = torch.finfo(FLOAT8).max
# Both dimensions of a weight must be multiples of this for the kernels.
MULTIPLE = 16
# Used as the largest number of a row of zeros, to avoid dividing by zero.
_TINY = 1e-30


def to_float8(values_MK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows in float8, row-major, and their scales [M, 1] in float32: values = float8 * scale.

    The largest number of a row becomes the largest of float8. A row with NaN or infinity has NaN in it.
    """
    absmax_M1 = values_MK.abs().amax(-1, keepdim=True).float()
    scales_M1 = absmax_M1.clamp(min=_TINY) / FLOAT8_MAX
    # A quotient of bf16 and float32 is float32, without a copy of the values in it.
    return (values_MK / scales_M1).to(FLOAT8).contiguous(), scales_M1


def scaled_matmul(
    left_MK: torch.Tensor, scales_M1: torch.Tensor, right_NK: torch.Tensor, scales_1N: torch.Tensor, fast: bool
) -> torch.Tensor:
    """Return left @ right^T [M, N] in bf16, of float8 rows and their float32 scales.

    Args:
        left_MK: Row-major.
        scales_M1: Of the rows of `left_MK`.
        right_NK: Row-major; N and K are multiples of `MULTIPLE`.
        scales_1N: Of the rows of `right_NK`.
        fast: Accumulate in the GPU's own short format (`use_fast_accum`).
    """
    if left_MK.shape[0] == 0:
        return left_MK.new_empty((0, right_NK.shape[0]), dtype=torch.bfloat16)
    if SCALED_MM is None:
        return public_scaled_matmul(left_MK, scales_M1, right_NK, scales_1N, fast)
    return SCALED_MM(left_MK, right_NK.t(), scales_M1, scales_1N, out_dtype=torch.bfloat16, use_fast_accum=fast)


def public_scaled_matmul(
    left_MK: torch.Tensor, scales_M1: torch.Tensor, right_NK: torch.Tensor, scales_1N: torch.Tensor, fast: bool
) -> torch.Tensor:
    """Return the same by torch's public function."""
    from torch.nn.functional import ScalingType, scaled_mm

    rowwise = ScalingType.RowWise
    return scaled_mm(
        left_MK,
        right_NK.t(),
        scales_M1,
        rowwise,
        scales_1N,
        rowwise,
        output_dtype=torch.bfloat16,
        use_fast_accum=fast,
    )
