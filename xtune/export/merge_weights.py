"""Merge the weights of an adapter into its base in memory, and compare the logits before and after."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from ..errors import ModelError
from ..methods import tied_embeddings

# Mean KL divergence (nats per token) above which a merge is refused. Rounding to bf16 stays below 0.01.
MAX_KL = 0.1
PROMPTS = ('Who are you?', 'Explain in one sentence why the sky is blue.', '请用一句话介绍你自己。', 'def add(a, b):\n')


def merge_weights(
    llm: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, base: str, adapter: str
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return the merged model, and the difference of its logits from those before the merge.

    Args:
        llm: The base with the adapter.
        tokenizer: The adapter's tokenizer.
        base: Name of the base, for messages.
        adapter: Name of the adapter, for messages.

    Raises:
        ModelError: Base and adapter do not belong together, cannot be merged, or the logits differ too much.
    """
    rows = llm.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f'the tokenizer of {adapter} has {len(tokenizer)} tokens, the base {base} only {rows}: '
            'it is not the base that the adapter was trained on'
        )
    _refuse_unmergeable(llm)
    before = prompt_logits(llm, tokenizer)
    llm = llm.merge_and_unload()
    tied_embeddings.untie_config(llm)
    report = compare_logits(before, prompt_logits(llm, tokenizer))
    if not report['mean_kl'] <= MAX_KL:
        raise ModelError(
            f'the logits of the merged model differ from those of base and adapter: mean KL {report["mean_kl"]:.3f} '
            f'nats per token (allowed {MAX_KL}), largest logit difference {report["max_abs_diff"]:.3f}. Try --dtype '
            'float32.'
        )
    return llm, report


def _refuse_unmergeable(llm: torch.nn.Module) -> None:
    if not hasattr(llm, 'merge_and_unload'):
        raise ModelError('adapters of this type have no weights to merge; use it with --adapter')
    quantizer = getattr(llm.get_base_model(), 'hf_quantizer', None)
    if quantizer is not None and not getattr(quantizer.quantization_config, 'dequantize', False):
        raise ModelError(
            'the weights of the base are stored quantized, and an adapter cannot be merged into quantized weights: '
            'merge into the unquantized base, or use the adapter directly: xtune chat BASE --adapter ADAPTER'
        )
    changed = tied_embeddings.unmergeable(llm)
    if changed:
        raise ModelError(
            f'the base ties its input and output embeddings, and this adapter changes {" and ".join(changed)} '
            'separately; merging would change both. Use it with --adapter.'
        )


@torch.inference_mode()
def prompt_logits(llm: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """Return the float32 logits [S, V] of each of `PROMPTS`."""
    device = next(llm.parameters()).device
    logits = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors='pt')['input_ids'].to(device)
        logits.append(llm(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return logits


def compare_logits(before: list[torch.Tensor], after: list[torch.Tensor]) -> dict[str, float]:
    """Return largest absolute difference, mean KL (nats), and the share of positions with the same argmax."""
    old, new = torch.cat(before), torch.cat(after)
    kl = F.kl_div(new.log_softmax(-1), old.log_softmax(-1), log_target=True, reduction='batchmean')
    return dict(
        max_abs_diff=(old - new).abs().max().item(),
        mean_kl=max(kl.item(), 0.0) if kl.isfinite() else float('inf'),
        same_first_choice=(old.argmax(-1) == new.argmax(-1)).float().mean().item(),
    )
