"""An adapter that was trained with more or fewer tokens than its base has: the base gets as many rows as the adapter.

peft saves resized embeddings with the adapter. Rows that it did not save have no values, so such an adapter is refused.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import ModelError

# What peft calls the weights of an embedding before it was trained, below the name of its module.
_BASE = ('base_layer.weight', 'original_module.weight', 'token_adapter.base_layer.weight')


@dataclass(frozen=True)
class _Saved:
    """What an adapter holds of one embedding: numbers of rows, and whether it holds all rows that are computed with.

    `base` says that it holds those that both embeddings use if they are one; `tokens` are rows trained by themselves.
    """

    name: str
    rows: set[int]
    used: bool
    base: bool
    tokens: set[int]


def fit_vocabulary(llm: PreTrainedModel, folder: str, found: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Give the embeddings of `llm` as many rows as the adapter in `folder` was trained with.

    Args:
        llm: The base.
        folder: For messages.
        found: The adapter's tensors, by the names in its file.
        values: Its adapter_config.json.

    Raises:
        ModelError: The adapter does not tell how many rows there were, or lacks weights of new ones.
    """
    modules = [llm.get_input_embeddings(), llm.get_output_embeddings()]
    if modules[0] is None or getattr(modules[0], 'weight', None) is None:
        return
    names = {id(module): name for name, module in llm.named_modules()}
    saved = [_saved(names[id(m)], m is modules[0], found, values) for m in modules if m is not None]
    now, largest = modules[0].weight.shape[0], max((token for one in saved for token in one.tokens), default=0)
    wanted = set().union(*(one.rows for one in saved))
    if not wanted and largest >= now:
        wanted = {largest + 1}
    if not wanted or wanted == {now}:
        return
    if len(wanted) > 1:
        raise ModelError(f'the embeddings in the adapter {folder} have different numbers of rows: {sorted(wanted)}')
    rows = wanted.pop()
    tied = len(modules) > 1 and modules[1] is not None and modules[1].weight is modules[0].weight
    lost = _without_rows(saved, set(range(now, rows)), tied, bool(values.get('ensure_weight_tying')))
    if lost:
        raise ModelError(
            f'the adapter {folder} was trained with {rows} rows in its embeddings, the base has {now}, and the adapter '
            f'holds no weights of the new rows of {" and ".join(lost)}: save it with save_embedding_layers=True'
        )
    llm.resize_token_embeddings(rows, mean_resizing=False)


def _saved(name: str, first: bool, found: dict[str, torch.Tensor], values: dict[str, Any]) -> _Saved:
    prefix = f'base_model.model.{name}.'
    own = {key.removeprefix(prefix): tensor for key, tensor in found.items() if key.startswith(prefix)}
    rows = {tensor.shape[0] for key, tensor in own.items() if key in (*_BASE, 'weight', 'lora_B.weight')}
    rows |= {tensor.shape[1] for key, tensor in own.items() if key == 'lora_embedding_A'}
    base = any(key in own for key in _BASE)
    copied = name.rpartition('.')[2] in (values.get('modules_to_save') or ())
    tokens = _trained_tokens(name, first, values)
    return _Saved(name, rows, base or 'weight' in own, base or ('weight' in own and not copied), tokens)


def _without_rows(saved: list[_Saved], new: set[int], tied: bool, same: bool) -> list[str]:
    """Return the embeddings whose `new` rows the adapter does not hold; one may have them from the other if `tied`.

    `same` says that a copy which was trained takes the place of both.
    """
    if not new:
        return []
    # peft lets the head share the tokens that it trains in the input embedding.
    shared = tied and (new <= saved[0].tokens or any(one.base or (same and one.used) for one in saved))
    return [one.name for one in saved if not (one.used or new <= one.tokens or shared)]


def _trained_tokens(name: str, first: bool, values: dict[str, Any]) -> set[int]:
    """Return the tokens that the adapter trains by themselves in an embedding; a list means the input embedding."""
    given, last = values.get('trainable_token_indices') or (), name.rpartition('.')[2]
    if isinstance(given, dict):
        return set(given.get(last) or given.get(name) or ())
    return set(given) if first else set()
