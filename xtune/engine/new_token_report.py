"""Warns of tokens in the data whose embeddings neither the base model nor the adapter has trained."""

import numpy as np

from ..config.specs import ModelSpec
from ..data.training_data import TrainingData
from ..methods.untrained_embeddings import untrained_rows
from ..models.loading.folder_checks import local_folder

MAX_SAMPLES = 20_000
MAX_SHOWN = 5  # tokens


def new_token_warning(model: ModelSpec, data: TrainingData) -> str:
    """Return a warning about such tokens and what to do; empty if there are none, or all weights are trained."""
    if model.lora is None or _trains_embedding(model.lora.keywords):
        return ''
    # torch keeps the row of the padding token at zero.
    added = sorted(set(data.tokenizer.added_tokens_decoder) - {data.tokenizer.pad_token_id})
    folder = local_folder(model.base_model)
    untrained = untrained_rows(folder, added) if folder is not None else []
    trained = model.lora.keywords.get('trainable_token_indices') or ()
    covered = {i for ids in trained.values() for i in ids} if isinstance(trained, dict) else set(trained)
    used = [i for i in _used(data, untrained) if i not in covered]
    if not used:
        return ''
    names = ', '.join(f'`{token}`' for token in data.tokenizer.convert_ids_to_tokens(used[:MAX_SHOWN]))
    more = f' and {len(used) - MAX_SHOWN} more' if len(used) > MAX_SHOWN else ''
    return (
        f'the base model never learned {names}{more}, which the data use, and the adapter does not train them: set '
        f"lora.trainable_token_indices={used}, or lora.modules_to_save=['embed_tokens', 'lm_head']"
    )


def _trains_embedding(lora: dict) -> bool:
    targets = lora.get('target_modules') or ()
    named = [*(lora.get('modules_to_save') or ()), *([targets] if isinstance(targets, str) else targets)]
    return any(word in name for name in named for word in ('embed', 'wte'))


def _used(data: TrainingData, ids: list[int]) -> list[int]:
    """Return those of `ids` that are in the first samples."""
    if not ids:
        return []
    present, store = set(), data.train.store
    for sample in range(min(len(store), MAX_SAMPLES)):
        tokens = store.ids(sample)
        present.update(tokens[np.isin(tokens, ids)].tolist())
    return sorted(present)
