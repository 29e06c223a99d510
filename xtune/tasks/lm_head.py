"""Where a model's logits are its last hidden states times one weight, the loss can do without them; see `linear_loss`.

Some models do more (scales, caps), and adapters may lie on the output layer: a trial on four tokens tells.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from ..utils.language_model import language_model


@dataclass(frozen=True)
class LmHead:
    """`decoder` gives hidden states [B, S, H], and `linear` makes logits of them."""

    decoder: torch.nn.Module
    linear: torch.nn.Linear

    def hidden(self, **arguments: Any) -> torch.Tensor:
        """Return the last hidden states [B, S, H]; takes the arguments of the model."""
        return self.decoder(**arguments, use_cache=False).last_hidden_state


@torch.no_grad()
def find_lm_head(llm: torch.nn.Module) -> LmHead | None:
    """Return the parts of `llm` whose product are its logits; None: they are not, or it cannot be told."""
    base = llm.get_base_model() if isinstance(llm, PeftModel) else llm
    linear = base.get_output_embeddings() if hasattr(base, 'get_output_embeddings') else None
    decoder = before_output_layer(base)
    if type(linear) is not torch.nn.Linear or decoder is None:
        return None
    head = LmHead(decoder, linear)
    ids = torch.arange(1, 5, device=linear.weight.device)[None] % linear.weight.shape[0]
    training = llm.training
    llm.eval()
    try:
        made, logits = linear(head.hidden(input_ids=ids)), llm(input_ids=ids, use_cache=False).logits
    except (AttributeError, TypeError, ValueError, RuntimeError):  # models of any author
        return None
    finally:
        llm.train(training)
    return head if made.dtype == logits.dtype and torch.equal(made, logits) else None


def before_output_layer(base: torch.nn.Module) -> torch.nn.Module | None:
    """Return the part of a model that its output layer comes after; None: it is not found."""
    for model in (base, language_model(base)):  # the language model of Llama 4 has an output layer of its own
        for name in (getattr(model, 'base_model_prefix', ''), 'model'):
            decoder = getattr(model, name, None) if name else None
            if isinstance(decoder, torch.nn.Module):
                return decoder
    return None
