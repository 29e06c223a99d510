"""Cross-entropy of the output layer, a chunk of positions at a time: [positions, vocabulary] is never there as a whole.

The gradient is computed with the loss, while a chunk's logits are there, as in Liger Kernel (Hsu et al., 2024).

Legend: K positions, k of a chunk, H width, V vocabulary.
"""

from typing import Any

import torch

# Bytes that the float32 logits of a chunk may take.
CHUNK = 2**28


def linear_cross_entropy(
    hidden_KH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None, targets_K: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy summed over K positions of the logits `hidden @ weight.T + bias`, a float32 scalar.

    Logits are computed in the type of `hidden`, everything from there on in float32.
    """
    return _LinearCrossEntropy.apply(hidden_KH, weight_VH, bias_V, targets_K)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_KH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_K: torch.Tensor,
    ) -> torch.Tensor:
        wants = ctx.needs_input_grad
        total = hidden_KH.new_zeros((), dtype=torch.float32)
        grads = [
            torch.zeros_like(tensor, dtype=tensor.dtype if number == 0 else torch.float32) if wants[number] else None
            for number, tensor in enumerate((hidden_KH, weight_VH, bias_V))
        ]
        rows = max(1, CHUNK // (4 * weight_VH.shape[0]))
        for start in range(0, len(hidden_KH), rows):
            hidden_kH, targets_k1 = hidden_KH[start : start + rows], targets_K[start : start + rows, None]
            logits_kV = torch.nn.functional.linear(hidden_kH, weight_VH, bias_V).float()
            log_total_k1 = logits_kV.logsumexp(1, keepdim=True)
            total += (log_total_k1 - logits_kV.gather(1, targets_k1)).sum()
            if not any(wants):
                continue
            # softmax - 1 at the target
            slope_kV = logits_kV.sub_(log_total_k1).exp_()
            slope_kV.scatter_add_(1, targets_k1, slope_kV.new_full((), -1.0).expand(targets_k1.shape))
            _add(grads, slope_kV, hidden_kH, weight_VH, start)
        ctx.save_for_backward(*grads)
        ctx.dtypes = weight_VH.dtype, bias_V.dtype if bias_V is not None else None
        return total

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple:
        hidden, weight, bias = (None if g is None else g * slope.to(g.dtype) for g in ctx.saved_tensors)
        own, of_bias = ctx.dtypes
        return hidden, None if weight is None else weight.to(own), None if bias is None else bias.to(of_bias), None


def _add(grads: list, slope_kV: torch.Tensor, hidden_kH: torch.Tensor, weight_VH: torch.Tensor, start: int) -> None:
    """Add what a chunk gives to the gradients of hidden states, weight and bias that are wanted."""
    hidden, weight, bias = grads
    if bias is not None:
        bias += slope_kV.sum(0)
    slope_kV = slope_kV.to(hidden_kH.dtype)
    if hidden is not None:
        torch.mm(slope_kV, weight_VH, out=hidden[start : start + len(hidden_kH)])
    if weight is not None:
        weight += slope_kV.T @ hidden_kH
