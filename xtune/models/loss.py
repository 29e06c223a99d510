"""The loss: cross-entropy summed over trained tokens.

The sum is divided by the trained tokens of the whole optimizer step, over micro-batches and accumulation, so that
4 x 1, 2 x 2 and 1 x 4 sequences, packed or not, give the same gradient. A mean of means would not.

Legend: B sequences, S tokens, K positions kept, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F

from ..data.batches import IGNORE, MicroBatch


def summed_loss(llm: torch.nn.Module, batch: MicroBatch, **more: Any) -> torch.Tensor:
    """Return the cross-entropy summed over the trained tokens of `batch`, a float32 scalar.

    Logits are computed only at positions where some sequence of the batch has a target: prompts cost no vocabulary.
    `more` are further arguments of the model's call.
    """
    columns_K = (batch.targets != IGNORE).any(dim=0).nonzero().squeeze(1)
    arguments = dict(input_ids=batch.input_ids, use_cache=False, logits_to_keep=columns_K, **more)
    if batch.position_ids is not None:
        arguments['position_ids'] = batch.position_ids
    logits_BKV = llm(**arguments).logits
    targets_BK = batch.targets[:, columns_K]
    return F.cross_entropy(logits_BKV.float().flatten(0, 1), targets_BK.flatten(), ignore_index=IGNORE, reduction='sum')
