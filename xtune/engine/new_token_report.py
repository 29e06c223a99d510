"""Tokens that the data use, that the base model never learned, and that the adapter would not learn either."""

import numpy as np

from ..config.wire import Job
from ..data.training_data import TrainingData
from ..methods.untrained_embeddings import untrained_rows
from ..models.loading.folder_checks import local_folder

LOOK = 20_000  # samples
SHOWN = 5  # tokens


def new_token_warning(job: Job, data: TrainingData) -> str:
    """Return a sentence about such tokens and what to do; empty if there are none, or all weights are trained."""
    if job.lora is None or _trains_embedding(job.lora.keywords):
        return ''
    # torch keeps the row of the padding token at zero.
    added = sorted(set(data.tokenizer.added_tokens_decoder) - {data.tokenizer.pad_token_id})
    folder = local_folder(job.values.base_model)
    untrained = untrained_rows(folder, added) if folder is not None else []
    given = job.lora.keywords.get('trainable_token_indices') or ()
    covered = {i for ids in given.values() for i in ids} if isinstance(given, dict) else set(given)
    used = [i for i in _used(data, untrained) if i not in covered]
    if not used:
        return ''
    names = ', '.join(f'`{token}`' for token in data.tokenizer.convert_ids_to_tokens(used[:SHOWN]))
    more = f' and {len(used) - SHOWN} more' if len(used) > SHOWN else ''
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
    found, store = set(), data.train.store
    for sample in range(min(len(store), LOOK)):
        there = store.ids(sample)
        found.update(there[np.isin(there, ids)].tolist())
    return sorted(found)
