"""Write a 2023 remote-code checkpoint in the native layout, or a native model in its original layout."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ..errors import ModelError
from ..hf_format.transformers4_config import readable_by_v4
from ..hf_format.transformers4_tokenizer import write_tokenizer
from ..models.legacy.checkpoint import LegacyCheckpoint
from ..models.legacy.families import open_legacy
from ..models.legacy.load import check_tensors, generation_config, native_tensors
from ..models.legacy.tensors import EMBEDDING, LM_HEAD, fused_names
from ..models.legacy.tokenizers import legacy_tokenizer, tokenizer_file
from ..models.loading.folder_checks import refuse_ids_beyond
from ..models.loading.verify import refuse_non_finite
from ..models.loading.weight_files import WeightFiles
from .shards import INDEX, write_shards

_WEIGHTS = {'.safetensors', '.bin', '.pt', '.pth'}


def write_native(legacy: LegacyCheckpoint, folder: Path, max_bytes: int) -> tuple[type, int, bool]:
    """Write the model into `folder` for plain from_pretrained; memory use is about one weight file.

    Args:
        legacy: The checkpoint to convert.
        folder: An empty folder.
        max_bytes: Maximum size of a weight file.

    Returns:
        The model's class, the number of weight files, and whether there was a tokenizer.

    Raises:
        ModelError: Weights or tokenizer are damaged or incomplete.
    """
    weights = WeightFiles(legacy.folder)
    cls = check_tensors(legacy, weights)
    has_tokenizer = (
        tokenizer_file(legacy.folder, legacy.variant).is_file() or (legacy.folder / 'tokenizer_config.json').is_file()
    )
    if has_tokenizer:  # before the weights, which take long
        tokenizer = legacy_tokenizer(legacy.folder, legacy.variant)
        largest_id = max(tokenizer.get_vocab().values(), default=0)
        refuse_ids_beyond(str(legacy.folder), largest_id, legacy.config.vocab_size)
        write_tokenizer(folder, tokenizer)
    count = _write_weights(folder, _checked_finite(legacy, native_tensors(legacy, weights)), max_bytes)
    legacy.config.architectures = [cls.__name__]
    legacy.config.save_pretrained(folder)
    readable_by_v4(folder)
    generation_config(legacy).to_json_file(folder / 'generation_config.json', use_diff=True)
    return cls, count, has_tokenizer


def write_original(
    legacy: LegacyCheckpoint,
    state: dict[str, torch.Tensor],
    folder: Path,
    max_bytes: int,
    stop_ids: list[int] | None = None,
) -> int:
    """Write the native tensors `state` into `folder` in the original layout of `legacy`, with its non-weight files.

    Args:
        legacy: The base.
        state: All native tensors, by name.
        folder: An empty folder.
        max_bytes: Maximum size of a weight file.
        stop_ids: Stop tokens for generation_config.json; None leaves the file unchanged.

    Returns:
        The number of weight files.

    Raises:
        ModelError: The layout cannot represent the trained weights.
    """
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    lm_head = _original_lm_head(legacy, state)
    count = _write_weights(folder, _fused_tensors(legacy, state, lm_head), max_bytes)
    for path in legacy.folder.iterdir():
        if path.is_file() and path.suffix not in _WEIGHTS and not path.name.endswith('.index.json'):
            shutil.copy2(path, folder / path.name)
    dtype = str(next(iter(state.values())).dtype).removeprefix('torch.')
    _write_json(folder / 'config.json', legacy.original | dict(torch_dtype=dtype))
    if stop_ids is not None:
        path = folder / 'generation_config.json'
        values = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
        _write_json(path, values | dict(eos_token_id=stop_ids))
    return count


def _fused_tensors(
    legacy: LegacyCheckpoint, state: dict[str, torch.Tensor], lm_head: torch.Tensor | None
) -> Iterator[tuple[str, torch.Tensor]]:
    for old, parts in fused_names(legacy.table, [name for name in state if name != LM_HEAD]).items():
        yield old, torch.cat([state[part] for part in parts]) if len(parts) > 1 else state[parts[0]]
    if lm_head is not None:
        [old] = fused_names(legacy.table, [LM_HEAD])
        yield old, lm_head


def _original_lm_head(legacy: LegacyCheckpoint, state: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the lm_head to store for the original code; None if it is not stored because it is tied.

    If the original code normalizes the lm_head and it was not trained, return the base's, with its row norms.
    """
    before = {name: tensor for name, tensor in native_tensors(legacy, WeightFiles(legacy.folder)) if name == LM_HEAD}
    lm_head = state.get(LM_HEAD)
    [old] = fused_names(legacy.table, [LM_HEAD])
    tied = state[EMBEDDING] if old in WeightFiles(legacy.folder).shapes else None  # some files store it twice
    if legacy.config.tie_word_embeddings:
        return tied
    if not legacy.norm_head:
        unchanged = legacy.head_from_embedding and torch.equal(lm_head, state[EMBEDDING])
        return tied if unchanged else lm_head
    if not torch.equal(before[LM_HEAD].to(lm_head.dtype), lm_head):
        norms = lm_head.float().norm(dim=1)
        if (norms - 1).abs().max() > 0.01:
            raise ModelError(
                'the adapter trained lm_head, and the original code divides its rows by their norms, which are now '
                f'{norms.min():.3f} to {norms.max():.3f}: its answers would change. Merge without --layout original.'
            )
        return tied if legacy.head_from_embedding else lm_head
    if legacy.head_from_embedding:
        return tied
    stored = next(tensor for name, tensor in WeightFiles(legacy.folder).tensors() if name == old)
    return stored.to(lm_head.dtype)


def _write_weights(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], max_bytes: int) -> int:
    """Write safetensors files of at most `max_bytes`, and an index if there are several; return their number."""
    shards = write_shards(folder, tensors, max_bytes)
    if len(shards.files) == 1:
        [file] = shards.files
        (folder / file).rename(folder / 'model.safetensors')
    else:
        index = dict(metadata=dict(total_size=shards.tensor_bytes), weight_map=shards.weight_map)
        _write_json(folder / INDEX, index)
    return len(shards.files)


def _checked_finite(
    legacy: LegacyCheckpoint, tensors: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors:
        refuse_non_finite(legacy.folder, name, tensor)
        yield name, tensor


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')


def open_for_original(base: Path | None, name: str, variant: str | None) -> LegacyCheckpoint:
    """Return the base of a merge whose result is written in the original layout.

    Raises:
        ModelError: The base `name` is not a 2023 remote-code checkpoint.
    """
    if base is None:
        raise ModelError(f'--layout original is for 2023 remote-code checkpoints; {name} already has the native layout')
    return open_legacy(base, variant)
