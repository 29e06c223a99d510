"""Parity check: does a model compute the same logits and gradients with another attention?"""

from contextlib import AbstractContextManager

import torch

from ..errors import ModelError
from ..ops.varlen_attention import CAUSAL
from ..utils.language_model import base_of
from ..utils.model_structure import layers_of
from ..utils.parity_inputs import parity_token_ids, tokens_per_sample

# Tokens of the first of two samples in the sequence; the second has three times as many. With much shorter samples,
# gradients in bf16 are mostly noise.
FIRST_SAMPLE = 16
# Largest difference from masked attention, relative to the norms: of logits, and of gradients. SmolLM2 in bf16 on a
# CPU: 0.015 and 0.09 between two correct attentions (eager and sdpa), 0.17 and 1.0 where samples see each other.
TOLERANCE = {torch.float32: (1e-3, 1e-2), torch.bfloat16: (0.1, 0.5)}


class AttentionParity:
    """Runs one sequence of samples through `llm`, forward and backward.

    Args:
        llm: The model.
        name: The attention to check, of transformers' AttentionInterface.
        dtype: The compute type.
        device: The device it computes on.
        context: The context the model computes in, such as autocast.
    """

    def __init__(
        self,
        llm: torch.nn.Module,
        name: str,
        dtype: torch.dtype,
        device: torch.device,
        context: AbstractContextManager,
    ) -> None:
        self.llm, self.dtype, self.device, self.context = llm, dtype, device, context
        self.config = base_of(llm).config.get_text_config()
        self.packed = name != CAUSAL
        first = tokens_per_sample(self.config, FIRST_SAMPLE, 4)
        self.sample_lengths = (first, 3 * first) if self.packed else (4 * first,)

    def outputs(self, masked: bool = False) -> list[torch.Tensor] | None:
        """Return the logits [1, S, V] and the gradients of two weights of the layers; None: the model fails.

        Args:
            masked: The model has its original attention, with a mask.
        """
        training = self.llm.training
        self.llm.eval()
        try:
            with self.context, torch.enable_grad():
                return self._outputs(masked)
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError, ModelError):  # any author's model
            return None
        finally:
            self.llm.train(training)

    def allclose(self, actual: list[torch.Tensor] | None, expected: list[torch.Tensor] | None) -> bool:
        """Return whether two outputs have the same logits and gradients within tolerance; NaN is never the same."""
        if actual is None or expected is None or len(actual) != len(expected):
            return False
        logits_tolerance, grad_tolerance = TOLERANCE.get(self.dtype, TOLERANCE[torch.bfloat16])
        tolerances = [logits_tolerance] + [grad_tolerance] * (len(actual) - 1)
        triples = zip(tolerances, actual, expected, strict=True)
        return all(((new - old).norm() <= tolerance * old.norm()).item() for tolerance, new, old in triples)

    def _outputs(self, masked: bool) -> list[torch.Tensor]:
        seq_len = sum(self.sample_lengths)
        ids_BS = parity_token_ids(seq_len, self.config.vocab_size, self.device)
        positions_BS = torch.cat([torch.arange(n) for n in self.sample_lengths])[None].to(self.device)
        kwargs = {}
        if self.packed and not masked:
            cu_seqlens = [0, self.sample_lengths[0], seq_len, seq_len]
            cu_seqlens_C = torch.tensor(cu_seqlens, dtype=torch.int32, device=self.device)
            kwargs = dict(packed_cu_seqlens=cu_seqlens_C, packed_max_seqlen=seq_len)
        logits_BSV = self.llm(input_ids=ids_BS, position_ids=positions_BS, use_cache=False, **kwargs).logits.float()
        # Weights of the first layers, so that the backward pass covers all. autograd.grad leaves `grad` alone.
        weights = [p for layer in layers_of(self.llm) for p in layer.parameters() if p.requires_grad][:2]
        grads = torch.autograd.grad(logits_BSV.square().mean(), weights, allow_unused=True) if weights else ()
        return [logits_BSV.detach(), *(grad.float() for grad in grads if grad is not None)]
