"""The loss: cross-entropy summed over trained tokens.

The sum is divided by the trained tokens of the whole optimizer step, over micro-batches and accumulation, so that
4 x 1, 2 x 2 and 1 x 4 sequences, packed or not, give the same gradient. A mean of means would not.

Legend: B sequences, S tokens, K positions kept, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F

from ..data.batches import IGNORE, MicroBatch
from ..ops.chunked_cross_entropy import chunked_cross_entropy
from .lm_head import LmHead


def summed_loss(llm: torch.nn.Module, batch: MicroBatch, head: LmHead | None = None, **more: Any) -> torch.Tensor:
    """Return the cross-entropy summed over the trained tokens of `batch`, a float32 scalar.

    Logits are computed only at positions where some sequence of the batch has a target: prompts cost no vocabulary.
    With `head` they are never there as a whole. `more` are further arguments of the model's call.
    """
    if head is not None:
        return _without_logits(head, batch, **more)
    columns_K = (batch.targets != IGNORE).any(dim=0).nonzero().squeeze(1)
    arguments = dict(input_ids=batch.input_ids, use_cache=False, logits_to_keep=columns_K, **more)
    if batch.position_ids is not None:
        arguments['position_ids'] = batch.position_ids
    logits_BKV = llm(**arguments).logits
    if logits_BKV.shape[1] == batch.input_ids.shape[1]:  # some models ignore logits_to_keep
        logits_BKV = logits_BKV[:, columns_K]
    targets_BK = batch.targets[:, columns_K]
    return F.cross_entropy(logits_BKV.float().flatten(0, 1), targets_BK.flatten(), ignore_index=IGNORE, reduction='sum')


def _without_logits(head: LmHead, batch: MicroBatch, **more: Any) -> torch.Tensor:
    if batch.position_ids is not None:
        more['position_ids'] = batch.position_ids
    hidden_BSH = head.hidden(input_ids=batch.input_ids, **more)
    hidden_KH = hidden_BSH.flatten(0, 1).index_select(0, batch.trained_at)
    targets_K = batch.targets.flatten().index_select(0, batch.trained_at)
    return chunked_cross_entropy(hidden_KH, head.linear.weight, head.linear.bias, targets_K)
