"""Matrix products in float8 with a scale for each row and each column: the one place that asks torch for them.

`torch._scaled_mm` is private, but the one whose kernels torch.compile chooses among in every release from 2.6 on; where
it is gone, `torch.nn.functional.scaled_mm` does the same. The tests compare the two.

Legend: M, N rows, K what is summed over.
"""

import torch

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
# The kernels want both dimensions of a weight to be multiples of it.
MULTIPLE = 16
# A row of zeros has this as its largest number, so that it is not divided by zero.
_TINY = 1e-30


def to_float8(values_MK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows in float8, in row-major order, and their scales [M, 1] in float32: values = float8 x scale.

    The largest number of a row becomes the largest of float8. A row with NaN or infinity has NaN in it.
    """
    largest_M1 = values_MK.abs().amax(-1, keepdim=True).float()
    scales_M1 = largest_M1.clamp(min=_TINY) / LARGEST
    # A quotient of bf16 and float32 is float32, without a copy of the values in it.
    return (values_MK / scales_M1).to(FLOAT8).contiguous(), scales_M1


def scaled_product(
    left_MK: torch.Tensor, scales_M1: torch.Tensor, right_NK: torch.Tensor, scales_1N: torch.Tensor, fast: bool
) -> torch.Tensor:
    """Return left x right^T [M, N] in bf16, of rows in float8 and their scales in float32.

    Args:
        left_MK: Row-major.
        scales_M1: Of the rows of `left_MK`.
        right_NK: Row-major; N and K are multiples of `MULTIPLE`.
        scales_1N: Of the rows of `right_NK`.
        fast: Let the GPU add up in its own short format; see `torch._scaled_mm`.
    """
    if left_MK.shape[0] == 0:
        return left_MK.new_empty((0, right_NK.shape[0]), dtype=torch.bfloat16)
    if hasattr(torch, '_scaled_mm'):
        return torch._scaled_mm(
            left_MK, right_NK.t(), scales_M1, scales_1N, out_dtype=torch.bfloat16, use_fast_accum=fast
        )
    return public_product(left_MK, scales_M1, right_NK, scales_1N, fast)


def public_product(
    left_MK: torch.Tensor, scales_M1: torch.Tensor, right_NK: torch.Tensor, scales_1N: torch.Tensor, fast: bool
) -> torch.Tensor:
    """Do what `scaled_product` does through torch's public function, which came with torch 2.10."""
    from torch.nn.functional import ScalingType, scaled_mm

    rows = ScalingType.RowWise
    return scaled_mm(
        left_MK,
        right_NK.t(),
        scales_M1,
        rows,
        scales_1N,
        rows,
        output_dtype=torch.bfloat16,
        use_fast_accum=fast,
    )
