"""Cross-entropy of the output layer, a chunk of positions at a time: [positions, vocabulary] is never there as a whole.

The gradient is computed with the loss, while a chunk's logits are there, as in Liger Kernel (Hsu et al., 2024). On a
GPU what stands between the products is compiled: it reads the logits of a chunk twice and writes their gradient once.

Legend: K positions, k of a chunk, H width, V vocabulary.
"""

from typing import Any

import torch

from . import compilation
from .compilation import compiled

# Bytes that the float32 logits of a chunk may take; compiled, they are never there in float32, and take half.
CHUNK = 2**28


def linear_cross_entropy(
    hidden_KH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None, targets_K: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy summed over K positions of the logits `hidden @ weight.T + bias`, a float32 scalar.

    Logits are computed in the type of `hidden`, everything from there on in float32.
    """
    if not torch.is_grad_enabled():  # inside of the function a weight that is trained wants its gradient all the same
        hidden_KH, weight_VH = hidden_KH.detach(), weight_VH.detach()
        bias_V = None if bias_V is None else bias_V.detach()
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
        fast = compilation.works(hidden_KH.device)
        measure = compiled(loss_and_slope_to_compile, dynamic=True) if fast else loss_and_slope
        for start in range(0, len(hidden_KH), rows):
            hidden_kH = hidden_KH[start : start + rows]
            logits_kV = torch.nn.functional.linear(hidden_kH, weight_VH, bias_V)
            targets_k = targets_K[start : start + rows]
            if not any(wants):
                total += torch.nn.functional.cross_entropy(logits_kV.float(), targets_k, reduction='sum')
                continue
            loss, slope_kV = measure(logits_kV, targets_k)
            total += loss
            del logits_kV  # before the products below take room
            _add(grads, slope_kV, hidden_kH, weight_VH, start)
        ctx.save_for_backward(*grads)
        ctx.dtypes = weight_VH.dtype, bias_V.dtype if bias_V is not None else None
        return total

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple:
        hidden, weight, bias = (None if g is None else g * slope.to(g.dtype) for g in ctx.saved_tensors)
        own, of_bias = ctx.dtypes
        return hidden, None if weight is None else weight.to(own), None if bias is None else bias.to(of_bias), None


def loss_and_slope(logits_kV: torch.Tensor, targets_k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross-entropy, a float32 scalar, and its gradient [k, V] in the type of the logits."""
    targets_k1 = targets_k[:, None]
    logs_kV = torch.log_softmax(logits_kV, 1, dtype=torch.float32)
    loss = -logs_kV.gather(1, targets_k1).sum()
    slope_kV = logs_kV.exp_()  # softmax, less 1 at the target
    slope_kV.scatter_add_(1, targets_k1, slope_kV.new_full((), -1.0).expand(targets_k1.shape))
    return loss, slope_kV.to(logits_kV.dtype)


def loss_and_slope_to_compile(logits_kV: torch.Tensor, targets_k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same; without writing in place it compiles to one pass, as it is it takes three times as long."""
    logits_kV, own = logits_kV.float(), logits_kV.dtype
    log_total_k1 = logits_kV.logsumexp(1, keepdim=True)
    loss = (log_total_k1 - logits_kV.gather(1, targets_k[:, None])).sum()
    hit_kV = torch.arange(logits_kV.shape[1], device=logits_kV.device) == targets_k[:, None]
    return loss, ((logits_kV - log_total_k1).exp() - hit_kV.float()).to(own)


def _add(grads: list, slope_kV: torch.Tensor, hidden_kH: torch.Tensor, weight_VH: torch.Tensor, start: int) -> None:
    """Add what a chunk gives to the gradients of hidden states, weight and bias that are wanted."""
    hidden, weight, bias = grads
    if bias is not None:
        bias += slope_kV.sum(0)
    if hidden is not None:
        torch.mm(slope_kV, weight_VH, out=hidden[start : start + len(hidden_kH)])
    if weight is not None:
        weight += slope_kV.T @ hidden_kH
