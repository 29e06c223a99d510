"""Parity check: do samples that are packed into one sequence stay independent? It runs on the model itself.

Attention separates samples by position_ids or by cu_seqlens. Recurrent layers (Mamba, linear attention, short
convolutions) and some older model classes do not. Two things are compared, in the model's own compute type:

- the logits of three packed samples with those of the same samples in sequences of their own;
- the gradient of the later samples' logits at the tokens of the first sample with that at their own tokens. It is zero
  for independent samples, regardless of rounding and of the choice of experts.

Legend: P samples, S tokens of a sample, T = P * S, V vocabulary size, E embedding size.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.batches import MicroBatch, collate
from ..errors import ModelError
from ..utils.language_model import base_of
from ..utils.parity_inputs import parity_token_ids, tokens_per_sample
from .packed_attention import PackedAttention
from .recurrent_layers import flatten_packed, sample_boundary_kwargs

# Samples of the packed sequence, and tokens of each.
SAMPLES, TOKENS = 3, 16
# Largest difference of logits from those of unpacked samples, relative to their norm. In bf16 it only has to detect
# wrong positions or masks (about 1), because rounding changes the choice of experts; a leak shows in the gradient.
LOGITS_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}
# Largest gradient at the tokens of another sample, relative to that at the sample's own tokens.
GRADIENT_TOLERANCE = 1e-4
FAILURES = (AttributeError, IndexError, TypeError, ValueError, RuntimeError, ModelError)  # any author's model


@dataclass(frozen=True)
class Verdict:
    """The result of a parity check.

    Attributes:
        independent: Packed samples do not see each other.
        needs_boundaries: They are independent only with the arguments of `recurrent_layers.sample_boundary_kwargs`.
        reason: Why they are not, or not without these arguments.
        missing: The model's error message when it refused these arguments.
        fails: The model does not run unpacked samples either, so nothing could be compared.
    """

    independent: bool
    needs_boundaries: bool = False
    reason: str = ''
    missing: str = ''
    fails: bool = False


class _Samples:
    """Token ids [P, S] as a store for `collate`."""

    def __init__(self, ids_PS: np.ndarray) -> None:
        self._ids = ids_PS

    def ids(self, index: int) -> np.ndarray:
        return self._ids[index]

    def spans(self, index: int) -> np.ndarray:
        return np.empty((0, 2), dtype=np.int64)  # nothing is trained

    def place(self, index: int) -> str:
        return ''  # shown to nobody


class PackingParity:
    """Compares packed samples with the same samples unpacked.

    Args:
        llm: The model, as it will train, not compiled.
        dtype: The compute type.
        device: The device it computes on.
        context: The context the model computes in, such as autocast.
        attention: Its attention without masks; None: that of transformers.
        gradients: Compare gradients too; not possible with sharded weights.
    """

    def __init__(
        self,
        llm: torch.nn.Module,
        dtype: torch.dtype,
        device: torch.device,
        context: AbstractContextManager,
        attention: PackedAttention | None = None,
        gradients: bool = True,
    ) -> None:
        self._llm, self._dtype, self._device, self._context = llm, dtype, device, context
        self._attention, self._gradients = attention, gradients
        config = base_of(llm).config.get_text_config()
        length = tokens_per_sample(config, TOKENS, SAMPLES)
        ids_1T = parity_token_ids(SAMPLES * length, config.vocab_size, torch.device('cpu'))
        samples = _Samples(ids_1T.view(SAMPLES, length).numpy())
        ranges = [np.array([[index, 0, length]]) for index in range(SAMPLES)]
        self._unpacked = collate(samples, ranges, 0).to(device)
        self._packed = collate(samples, [np.concatenate(ranges)], 0).to(device)

    def verdict(self) -> Verdict | None:
        """Return whether packed samples are independent, if need be with sample boundaries.

        Returns:
            None where the logits of unpacked samples are not finite, as those of broken weights.
        """
        with _state_restored(self._llm, self._device), self._context:
            try:
                expected_TV = self._logits(self._unpacked, False)
            except torch.OutOfMemoryError:
                raise
            except FAILURES as error:
                reason = f'the model fails on sequences of {TOKENS} tokens: {_first_line(error)}'
                return Verdict(False, reason=reason, fails=True)
            if not expected_TV.isfinite().all():
                return None
            reason, _ = self._difference(expected_TV, False)
            if reason is None:
                return Verdict(True)
            reason_with_boundaries, missing = self._difference(expected_TV, True)
        independent = reason_with_boundaries is None
        return Verdict(independent, independent, reason, missing)

    def _difference(self, expected_TV: torch.Tensor, boundaries: bool) -> tuple[str | None, str]:
        """Return why packed samples are not independent (None: they are), and the model's error message if it
        failed."""
        try:
            packed_TV = self._logits(self._packed, boundaries)
            difference = ((packed_TV - expected_TV).norm() / expected_TV.norm()).item()
            if not difference <= LOGITS_TOLERANCE.get(self._dtype, LOGITS_TOLERANCE[torch.bfloat16]):
                return f'logits of samples change by {difference:.2g} of their norm when they are packed', ''
            leak = self._gradient_leak(boundaries) if self._gradients else 0.0
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            return f'the model fails on packed samples: {_first_line(error)}', _first_line(error)
        if not leak <= GRADIENT_TOLERANCE:
            return f'the gradient of a sample reaches earlier samples of the sequence, at {leak:.2g} of its norm', ''
        return None, ''

    @torch.no_grad()
    def _logits(self, batch: MicroBatch, boundaries: bool) -> torch.Tensor:
        """Return the logits [T, V] of a batch, in evaluation mode, without dropout."""
        self._llm.eval()
        return self._call(batch, boundaries).float().flatten(0, 1)

    def _gradient_leak(self, boundaries: bool) -> float:
        """Return the gradient of the later samples' logits at the first sample's embeddings, relative to that at their
        own; in training mode, in which some layers use other kernels."""
        self._llm.train()
        first = self._packed.input_ids.shape[1] // SAMPLES
        with torch.enable_grad(), _embeddings_as_leaves(base_of(self._llm).get_input_embeddings()) as embeddings:
            later_TV = self._call(self._packed, boundaries).float().flatten(0, 1)[first:]
            grads = torch.autograd.grad(later_TV.square().mean(), embeddings, allow_unused=True)
        grads_TE = [grad.float().flatten(0, 1) for grad in grads if grad is not None]
        if not grads_TE:
            return 0.0  # the model computes its embeddings otherwise: the logits must do
        return (sum(g[:first].norm() for g in grads_TE) / sum(g[first:].norm() for g in grads_TE)).item()

    def _call(self, batch: MicroBatch, boundaries: bool) -> torch.Tensor:
        batch = flatten_packed(batch) if boundaries else batch
        kwargs: dict[str, Any] = sample_boundary_kwargs(batch) if boundaries else {}
        if self._attention is not None:
            kwargs |= self._attention.model_kwargs(batch)
        if batch.position_ids is not None:
            kwargs['position_ids'] = batch.position_ids
        return self._llm(input_ids=batch.input_ids, use_cache=False, **kwargs).logits


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().partition('\n')[0]


@contextmanager
def _embeddings_as_leaves(embeddings: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Return a context in which outputs of `embeddings` are leaves of the autograd graph, and the list of them."""
    leaves: list[torch.Tensor] = []

    def detach(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()  # some models add to their embeddings in place

    handle = embeddings.register_forward_hook(detach)
    try:
        yield leaves
    finally:
        handle.remove()


@contextmanager
def _state_restored(llm: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Return a context that restores the mode of every module and the random number generators at its end."""
    modes = {module: module.training for module in llm.modules()}
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
