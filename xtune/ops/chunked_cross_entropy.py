"""Chunked linear cross-entropy: lm_head and loss over one chunk of tokens at a time, without logits of all tokens.

The gradient is computed together with the loss, while a chunk's logits exist, as in Liger Kernel (Hsu et al., 2024). On
a GPU the code between the matmuls is compiled: it reads the logits of a chunk twice and writes their gradient once.

Legend: T tokens, C tokens of a chunk, H hidden size, V vocabulary size.
"""

from typing import Any

import torch
from torch.nn.functional import cross_entropy, linear

from .compilation import can_compile, compiled

# Bytes of a chunk's logits in float32. The compiled code never writes them in float32, and takes half.
CHUNK_BYTES = 2**28


def chunked_cross_entropy(
    hidden_TH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None, targets_T: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy of `hidden @ weight.T + bias`, summed over T tokens, as a float32 scalar.

    Logits are computed in the type of `hidden_TH`, everything after them in float32.
    """
    if not torch.is_grad_enabled():  # else needs_input_grad is still True for a trained weight
        hidden_TH, weight_VH = hidden_TH.detach(), weight_VH.detach()
        bias_V = None if bias_V is None else bias_V.detach()
    return _ChunkedCrossEntropy.apply(hidden_TH, weight_VH, bias_V, targets_T)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_T: torch.Tensor,
    ) -> torch.Tensor:
        total_loss = hidden_TH.new_zeros((), dtype=torch.float32)
        grads = [
            torch.zeros_like(tensor, dtype=tensor.dtype if tensor is hidden_TH else torch.float32) if needed else None
            for tensor, needed in zip((hidden_TH, weight_VH, bias_V), ctx.needs_input_grad, strict=False)
        ]
        chunk_tokens = max(1, CHUNK_BYTES // (4 * weight_VH.shape[0]))
        can = can_compile(hidden_TH.device)
        loss_and_grad = compiled(loss_and_logit_grad_to_compile, dynamic=True) if can else loss_and_logit_grad
        for start in range(0, len(hidden_TH), chunk_tokens):
            hidden_CH = hidden_TH[start : start + chunk_tokens]
            logits_CV = linear(hidden_CH, weight_VH, bias_V)
            targets_C = targets_T[start : start + chunk_tokens]
            if not any(ctx.needs_input_grad):
                total_loss += cross_entropy(logits_CV.float(), targets_C, reduction='sum')
                continue
            loss, grad_CV = loss_and_grad(logits_CV, targets_C)
            total_loss += loss
            del logits_CV  # before the matmuls below allocate
            _accumulate(grads, grad_CV, hidden_CH, weight_VH, start)
        ctx.save_for_backward(*grads)
        ctx.dtypes = weight_VH.dtype, bias_V.dtype if bias_V is not None else None
        return total_loss

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple:
        grad_TH, grad_VH, grad_V = (None if g is None else g * grad_loss.to(g.dtype) for g in ctx.saved_tensors)
        weight_dtype, bias_dtype = ctx.dtypes
        grad_VH = None if grad_VH is None else grad_VH.to(weight_dtype)
        grad_V = None if grad_V is None else grad_V.to(bias_dtype)
        return grad_TH, grad_VH, grad_V, None


def loss_and_logit_grad(logits_CV: torch.Tensor, targets_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross-entropy, a float32 scalar, and its gradient [C, V] in the type of the logits."""
    targets_C1 = targets_C[:, None]
    log_probs_CV = torch.log_softmax(logits_CV, 1, dtype=torch.float32)
    loss = -log_probs_CV.gather(1, targets_C1).sum()
    grad_CV = log_probs_CV.exp_()  # softmax, less 1 at the target
    grad_CV.scatter_add_(1, targets_C1, grad_CV.new_full((), -1.0).expand(targets_C1.shape))
    return loss, grad_CV.to(logits_CV.dtype)


def loss_and_logit_grad_to_compile(
    logits_CV: torch.Tensor, targets_C: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same without in-place writes, which compiles to one pass; in eager mode it takes three times as long
    as `loss_and_logit_grad`."""
    logits_CV, dtype = logits_CV.float(), logits_CV.dtype
    log_sum_exp_C1 = logits_CV.logsumexp(1, keepdim=True)
    loss = (log_sum_exp_C1 - logits_CV.gather(1, targets_C[:, None])).sum()
    is_target_CV = torch.arange(logits_CV.shape[1], device=logits_CV.device) == targets_C[:, None]
    return loss, ((logits_CV - log_sum_exp_C1).exp() - is_target_CV.float()).to(dtype)


def _accumulate(
    grads: list[torch.Tensor | None],
    grad_CV: torch.Tensor,
    hidden_CH: torch.Tensor,
    weight_VH: torch.Tensor,
    start: int,
) -> None:
    """Add a chunk to the gradients of hidden states [T, H], weight [V, H] and bias [V], as far as they are needed."""
    grad_TH, grad_VH, grad_V = grads
    if grad_V is not None:
        grad_V += grad_CV.sum(0)
    if grad_TH is not None:
        torch.mm(grad_CV, weight_VH, out=grad_TH[start : start + len(hidden_CH)])
    if grad_VH is not None:
        grad_VH += grad_CV.T @ hidden_CH
