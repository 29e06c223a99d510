"""A parity check of whether samples that are packed into one row stay apart, on the model itself.

Attention tells samples apart by position_ids or by borders. Layers that carry a state over the row (Mamba, linear
attention, short convolutions) and some older classes do not. Two things are compared, in the model's own compute type:

- the logits of three packed samples with those of the same samples in rows of their own;
- the gradient of the later samples' logits at the tokens of the first sample with that at their own tokens. It is zero
  where samples stay apart, whatever rounding does and whichever experts are chosen.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.batches import MicroBatch
from ..data.collate import collate
from ..errors import ModelError
from ..parallel.ulysses import base_of
from ..utils.parity_inputs import trial_ids, trial_width
from .packed_attention import PackedAttention
from .recurrent_layers import boundary_arguments, in_one_row

# Samples of the row, and tokens of each.
SAMPLES, TOKENS = 3, 16
# Largest difference of logits from those of the samples alone, as a share of their norm. In bf16 it only has to find
# positions or masks that are wrong (about 1), as experts are chosen otherwise by rounding; what leaks has a gradient.
LOGITS = {torch.float32: 1e-3, torch.bfloat16: 0.3}
# Largest gradient at the tokens of another sample, as a share of that at the sample's own.
GRADIENT = 1e-4
FAILURES = (AttributeError, IndexError, TypeError, ValueError, RuntimeError, ModelError)  # models of any author


@dataclass(frozen=True)
class Verdict:
    """Whether samples stay apart, `boundaries`: by the arguments of boundaries.py; if not, the reason.

    `needs` is what the model said when it refused these arguments; `fails` says that it does not compute samples in
    rows of their own either, so that nothing can be compared.
    """

    apart: bool
    boundaries: bool = False
    reason: str = ''
    needs: str = ''
    fails: bool = False


class Samples:
    """Token ids [P, S] as a store that `collate` reads."""

    def __init__(self, ids_PS: np.ndarray) -> None:
        self._ids = ids_PS

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids of a sample."""
        return self._ids[index]

    def spans(self, index: int) -> np.ndarray:
        """Return none: nothing is trained."""
        return np.empty((0, 2), dtype=np.int64)

    def place(self, index: int) -> str:
        """Return nothing: no person reads it."""
        return ''


class ParityCheck:
    """Compares packed samples with the same samples alone.

    Args:
        llm: The model, as it will train, not compiled.
        dtype: The compute type.
        device: Where it computes.
        context: In which the model computes.
        attention: How it attends, if not as transformers does it.
        gradients: Compare gradients too; not where weights are sliced.
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
        width = trial_width(config, TOKENS, SAMPLES)
        ids_PS = trial_ids(SAMPLES * width, config.vocab_size, torch.device('cpu')).view(SAMPLES, width).numpy()
        pieces = [np.array([[number, 0, width]]) for number in range(SAMPLES)]
        self._alone = collate(Samples(ids_PS), pieces, 0).to(device)
        self._packed = collate(Samples(ids_PS), [np.concatenate(pieces)], 0).to(device)

    def verdict(self) -> Verdict | None:
        """Return whether samples stay apart as they are, or by the arguments of boundaries; None: the logits of samples
        alone are not finite, as of broken weights."""
        with _as_it_was(self._llm, self._device), self._context:
            try:
                alone_TV = self._logits(self._alone, False)
            except torch.OutOfMemoryError:
                raise
            except FAILURES as error:
                return Verdict(False, reason=f'the model fails on rows of {TOKENS} tokens: {_said(error)}', fails=True)
            if not alone_TV.isfinite().all():
                return None
            reason, _ = self._fault(alone_TV, False)
            if reason is None:
                return Verdict(True)
            other, refused = self._fault(alone_TV, True)
        return Verdict(other is None, other is None, reason, refused)

    def _fault(self, alone_TV: torch.Tensor, boundaries: bool) -> tuple[str | None, str]:
        """Return why packed samples are not apart (None: they are), and what the model said if it failed."""
        try:
            packed_TV = self._logits(self._packed, boundaries)
            share = ((packed_TV - alone_TV).norm() / alone_TV.norm()).item()
            if not share <= LOGITS.get(self._dtype, LOGITS[torch.bfloat16]):
                return f'logits of samples change by {share:.2g} of their norm when they are packed', ''
            leak = self._leak(boundaries) if self._gradients else 0.0
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            return f'the model fails on packed samples: {_said(error)}', _said(error)
        if not leak <= GRADIENT:
            return f'the gradient of a sample reaches those before it in the row, at {leak:.2g} of its norm', ''
        return None, ''

    @torch.no_grad()
    def _logits(self, batch: MicroBatch, boundaries: bool) -> torch.Tensor:
        """Return the logits [T, V] of a batch, in evaluation mode, so that nothing is dropped at random."""
        self._llm.eval()
        return self._call(batch, boundaries).float().flatten(0, 1)

    def _leak(self, boundaries: bool) -> float:
        """Return the gradient of the later samples' logits at the first sample's embeddings, as a share of that at
        their own; in training mode, as some layers have other kernels there."""
        self._llm.train()
        first = self._packed.input_ids.shape[1] // SAMPLES
        with torch.enable_grad(), _leaves(base_of(self._llm).get_input_embeddings()) as leaves_TE:
            later_TV = self._call(self._packed, boundaries).float().flatten(0, 1)[first:]
            slopes = torch.autograd.grad(later_TV.square().mean(), leaves_TE, allow_unused=True)
        slopes = [slope.float().flatten(0, 1) for slope in slopes if slope is not None]
        if not slopes:
            return 0.0  # embeddings of another kind: the logits have to do
        return (sum(s[:first].norm() for s in slopes) / sum(s[first:].norm() for s in slopes)).item()

    def _call(self, batch: MicroBatch, boundaries: bool) -> torch.Tensor:
        batch = in_one_row(batch) if boundaries else batch
        more: dict[str, Any] = boundary_arguments(batch) if boundaries else {}
        if self._attention is not None:
            more |= self._attention.arguments(batch)
        if batch.position_ids is not None:
            more['position_ids'] = batch.position_ids
        return self._llm(input_ids=batch.input_ids, use_cache=False, **more).logits


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().partition('\n')[0]


@contextmanager
def _leaves(embeddings: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Return a context in which what `embeddings` returns is a leaf, and the list of these."""
    leaves: list[torch.Tensor] = []

    def cut(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()  # some models add to their embeddings in place

    handle = embeddings.register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()


@contextmanager
def _as_it_was(llm: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Return a context after which every module is in the mode that it was in, and random numbers go on as before."""
    modes = {module: module.training for module in llm.modules()}
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
