"""Generate a reply's token ids."""

from typing import Any

import torch
from transformers import GenerationConfig


@torch.inference_mode()
def generate_ids(
    llm: torch.nn.Module,
    input_ids: torch.Tensor,
    stop_ids: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    streamer: Any = None,
) -> torch.Tensor:
    """Return the new token ids [n], the stop token included if one was reached.

    Args:
        llm: A causal language model, with or without an adapter.
        input_ids: The prompt [1, S], on the model's device.
        stop_ids: Generation ends at any of these.
        max_new_tokens: Tokens to generate at most.
        temperature: 0 always takes the likeliest token.
        top_p: Sample from the likeliest tokens that together have this probability.
        streamer: A transformers streamer that receives the ids as they come.
    """
    sampling = dict(do_sample=True, temperature=temperature, top_p=top_p) if temperature > 0 else dict(do_sample=False)
    # Named here, or transformers takes them from the model's own generation config.
    sampling |= dict(repetition_penalty=1.0, no_repeat_ngram_size=0, top_k=0 if temperature > 0 else 50)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=stop_ids, pad_token_id=stop_ids[0], use_cache=True, **sampling
    )
    mask = torch.ones_like(input_ids)
    out = llm.generate(input_ids=input_ids, attention_mask=mask, generation_config=config, streamer=streamer)
    return out[0, input_ids.shape[1] :]
