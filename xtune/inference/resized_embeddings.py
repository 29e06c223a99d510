"""Resize the base's embeddings to the vocabulary that an adapter was trained with.

peft saves resized embeddings with the adapter. An adapter without the weights of the new rows is refused.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import ModelError

# Names in adapter files of the untrained weight of an embedding, relative to its module.
_BASE_WEIGHTS = ('base_layer.weight', 'original_module.weight', 'token_adapter.base_layer.weight')


@dataclass(frozen=True)
class _SavedEmbedding:
    """The rows of one embedding in an adapter's files.

    Attributes:
        name: Name of the embedding's module.
        rows: The numbers of rows in its tensors.
        has_weight: Whether the adapter contains the weight that the embedding computes with.
        has_base_weight: Whether it contains the weight that tied embeddings share.
        tokens: Token ids of trainable_token_indices.
    """

    name: str
    rows: set[int]
    has_weight: bool
    has_base_weight: bool
    tokens: set[int]


def fit_vocabulary(llm: PreTrainedModel, folder: str, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Resize the embeddings of `llm` to the number of rows that the adapter in `folder` was trained with.

    Args:
        llm: The base.
        folder: Name of the adapter, for messages.
        tensors: The adapter's tensors, by their names in the file.
        values: The content of its adapter_config.json.

    Raises:
        ModelError: The number of rows is ambiguous, or the weights of new rows are missing.
    """
    modules = [llm.get_input_embeddings(), llm.get_output_embeddings()]
    if modules[0] is None or getattr(modules[0], 'weight', None) is None:
        return
    names = {id(module): name for name, module in llm.named_modules()}
    saved = [_saved_embedding(names[id(m)], m is modules[0], tensors, values) for m in modules if m is not None]
    current, largest = modules[0].weight.shape[0], max((token for one in saved for token in one.tokens), default=0)
    candidates = set().union(*(embedding.rows for embedding in saved))
    if not candidates and largest >= current:
        candidates = {largest + 1}
    if not candidates or candidates == {current}:
        return
    if len(candidates) > 1:
        raise ModelError(f'the embeddings in the adapter {folder} have different numbers of rows: {sorted(candidates)}')
    rows = candidates.pop()
    tied = len(modules) > 1 and modules[1] is not None and modules[1].weight is modules[0].weight
    ensure_weight_tying = bool(values.get('ensure_weight_tying'))
    incomplete = _without_new_rows(saved, set(range(current, rows)), tied, ensure_weight_tying)
    if incomplete:
        raise ModelError(
            f'the adapter {folder} was trained with {rows} rows in its embeddings, the base has {current}, and the '
            f'adapter contains no weights of the new rows of {" and ".join(incomplete)}: save it with '
            'save_embedding_layers=True'
        )
    llm.resize_token_embeddings(rows, mean_resizing=False)


def _saved_embedding(
    name: str, is_input: bool, tensors: dict[str, torch.Tensor], values: dict[str, Any]
) -> _SavedEmbedding:
    prefix = f'base_model.model.{name}.'
    saved = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    rows = {tensor.shape[0] for key, tensor in saved.items() if key in (*_BASE_WEIGHTS, 'weight', 'lora_B.weight')}
    rows |= {tensor.shape[1] for key, tensor in saved.items() if key == 'lora_embedding_A'}
    has_base = any(key in saved for key in _BASE_WEIGHTS)
    in_modules_to_save = name.rpartition('.')[2] in (values.get('modules_to_save') or ())
    has_weight = has_base or 'weight' in saved
    has_base_weight = has_base or ('weight' in saved and not in_modules_to_save)
    return _SavedEmbedding(name, rows, has_weight, has_base_weight, _trained_tokens(name, is_input, values))


def _without_new_rows(saved: list[_SavedEmbedding], new: set[int], tied: bool, ensure_weight_tying: bool) -> list[str]:
    """Return the names of embeddings whose `new` rows the adapter lacks. Tied embeddings share them.

    With `ensure_weight_tying` a trained copy replaces both embeddings.
    """
    if not new:
        return []
    # peft applies the trained tokens of the input embedding to a tied lm_head, too.
    in_shared_weight = any(one.has_base_weight or (ensure_weight_tying and one.has_weight) for one in saved)
    shared = tied and (new <= saved[0].tokens or in_shared_weight)
    return [one.name for one in saved if not (one.has_weight or new <= one.tokens or shared)]


def _trained_tokens(name: str, is_input: bool, values: dict[str, Any]) -> set[int]:
    """Return the trainable_token_indices of an embedding; a list is for the input embedding."""
    indices, last = values.get('trainable_token_indices') or (), name.rpartition('.')[2]
    if isinstance(indices, dict):
        return set(indices.get(last) or indices.get(name) or ())
    return set(indices) if is_input else set()
