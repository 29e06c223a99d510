"""A trial of whether a model computes the same with another attention."""

from contextlib import AbstractContextManager

import torch

from ..errors import ModelError
from ..ops.varlen_attention import ROWS
from ..parallel.ulysses import base_of
from ..utils.model_structure import layers_of
from ..utils.parity_inputs import trial_ids, trial_width

# Tokens of the first of two samples in the trial's row; the second has three times as many. Of much shorter ones
# gradients in bf16 are mostly noise.
FIRST = 16
# Largest differences from a mask, as shares of the norms: of logits, and of gradients. SmolLM2 in bf16 on a CPU: 0.015
# and 0.09 between two attentions that are right (eager and sdpa), 0.17 and 1.0 where samples see each other.
TOLERANCE = {torch.float32: (1e-3, 1e-2), torch.bfloat16: (0.1, 0.5)}


class Trial:
    """A row of samples through `llm`, forward and backward.

    Args:
        llm: The model.
        name: The attention to be tried, of transformers' AttentionInterface.
        dtype: The compute type.
        device: Where it computes.
        context: In which the model computes.
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
        self.borders = name != ROWS
        first = trial_width(self.config, FIRST, 4)
        self.lengths = (first, 3 * first) if self.borders else (4 * first,)

    def run(self, masked: bool = False) -> list[torch.Tensor] | None:
        """Return the logits [1, S, V], and the gradients of two weights of the layers; None: the model fails.

        Args:
            masked: It attends under a mask, as it did before.
        """
        training = self.llm.training
        self.llm.eval()
        try:
            with self.context, torch.enable_grad():
                return self._outputs(masked)
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError, ModelError):  # models of any author
            return None
        finally:
            self.llm.train(training)

    def agree(self, found: list[torch.Tensor] | None, expected: list[torch.Tensor] | None) -> bool:
        """Return whether two runs have the same logits and gradients; a NaN is never the same."""
        if found is None or expected is None or len(found) != len(expected):
            return False
        logits, slopes = TOLERANCE.get(self.dtype, TOLERANCE[torch.bfloat16])
        shares = [logits] + [slopes] * (len(found) - 1)
        pairs = zip(shares, found, expected, strict=True)
        return all(((new - old).norm() <= share * old.norm()).item() for share, new, old in pairs)

    def _outputs(self, masked: bool) -> list[torch.Tensor]:
        width = sum(self.lengths)
        ids_BS = trial_ids(width, self.config.vocab_size, self.device)
        positions_BS = torch.cat([torch.arange(n) for n in self.lengths])[None].to(self.device)
        more = {}
        if self.borders and not masked:
            borders = torch.tensor([0, self.lengths[0], width, width], dtype=torch.int32, device=self.device)
            more = dict(segment_borders=borders, longest_segment=width)
        logits_BSV = self.llm(input_ids=ids_BS, position_ids=positions_BS, use_cache=False, **more).logits.float()
        # Of the first layers, so that the backward pass goes through all; autograd.grad adds to no gradient.
        first = [p for layer in layers_of(self.llm) for p in layer.parameters() if p.requires_grad][:2]
        slopes = torch.autograd.grad(logits_BSV.square().mean(), first, allow_unused=True) if first else ()
        return [logits_BSV.detach(), *(slope.float() for slope in slopes if slope is not None)]
