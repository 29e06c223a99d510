"""Generate the token ids of a response."""

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
    """Return the generated token ids [n], including the stop token if one was generated.

    Args:
        llm: A causal language model, with or without an adapter.
        input_ids: The prompt [1, S], on the model's device.
        stop_ids: Generation stops after any of these tokens.
        max_new_tokens: Maximum number of generated tokens.
        temperature: Sampling temperature; 0 is greedy decoding.
        top_p: Nucleus sampling: sample from the most likely tokens with this total probability.
        streamer: A transformers streamer that receives the ids as they are generated.
    """
    sampling = dict(do_sample=True, temperature=temperature, top_p=top_p) if temperature > 0 else dict(do_sample=False)
    # Set explicitly: otherwise transformers uses the values of the model's generation config.
    sampling |= dict(repetition_penalty=1.0, no_repeat_ngram_size=0, top_k=0 if temperature > 0 else 50)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=stop_ids, pad_token_id=stop_ids[0], use_cache=True, **sampling
    )
    mask = torch.ones_like(input_ids)
    out = llm.generate(input_ids=input_ids, attention_mask=mask, generation_config=config, streamer=streamer)
    return out[0, input_ids.shape[1] :]
