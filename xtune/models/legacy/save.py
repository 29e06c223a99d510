"""Write a model of an old layout: in the layout of transformers, or back in its own."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...errors import ModelError
from ...hf_format.transformers4_config import readable_by_v4
from ...hf_format.transformers4_tokenizer import write_tokenizer
from ...hf_format.writer import unshared
from ..loading.folder_checks import refuse_ids_beyond
from ..loading.weight_files import WeightFiles, refuse_non_finite
from .families import Legacy, open_legacy
from .load import check_tensors, generation_config, native_tensors
from .tensors import EMBEDDING, HEAD, joined_names
from .tokenizers import legacy_tokenizer, tokenizer_file

_WEIGHTS = {'.safetensors', '.bin', '.pt', '.pth'}


def write_native(legacy: Legacy, folder: Path, limit: int) -> tuple[type, int, bool]:
    """Write the model into `folder` for plain from_pretrained, in memory of about one weights file.

    Args:
        legacy: What to convert.
        folder: An empty folder.
        limit: Bytes of a weights file at most.

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
        largest = max(tokenizer.get_vocab().values(), default=0)
        refuse_ids_beyond(str(legacy.folder), largest, legacy.config.vocab_size)
        write_tokenizer(folder, tokenizer)
    count = write_shards(folder, _finite(legacy, native_tensors(legacy, weights)), limit)
    legacy.config.architectures = [cls.__name__]
    legacy.config.save_pretrained(folder)
    readable_by_v4(folder)
    generation_config(legacy).to_json_file(folder / 'generation_config.json', use_diff=True)
    return cls, count, has_tokenizer


def write_original(
    legacy: Legacy, state: dict[str, torch.Tensor], folder: Path, limit: int, stop_ids: list[int] | None = None
) -> int:
    """Write native tensors `state` into `folder` in the layout that `legacy` has, with all its files but the weights.

    Args:
        legacy: The base, in its old layout.
        state: All native tensors, by name.
        folder: An empty folder.
        limit: Bytes of a weights file at most.
        stop_ids: Tokens that end a reply, for generation_config.json; None leaves it as it is.

    Returns:
        The number of weight files.

    Raises:
        ModelError: The layout cannot hold what was trained.
    """
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    head = _original_head(legacy, state)
    count = write_shards(folder, _joined(legacy, state, head), limit)
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


def _joined(
    legacy: Legacy, state: dict[str, torch.Tensor], head: torch.Tensor | None
) -> Iterator[tuple[str, torch.Tensor]]:
    for old, parts in joined_names(legacy.table, [name for name in state if name != HEAD]).items():
        yield old, torch.cat([state[part] for part in parts]) if len(parts) > 1 else state[parts[0]]
    if head is not None:
        [old] = joined_names(legacy.table, [HEAD])
        yield old, head


def _original_head(legacy: Legacy, state: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the head as the original code needs it; None if it is the embedding there.

    A head that the original code normalises goes back as it came, with the lengths of its rows, unless it was trained.
    """
    before = {name: tensor for name, tensor in native_tensors(legacy, WeightFiles(legacy.folder)) if name == HEAD}
    head = state.get(HEAD)
    [old] = joined_names(legacy.table, [HEAD])
    shared = state[EMBEDDING] if old in WeightFiles(legacy.folder).shapes else None  # some files hold it twice
    if legacy.config.tie_word_embeddings:
        return shared
    if not legacy.norm_head:
        unchanged = legacy.head_from_embedding and torch.equal(head, state[EMBEDDING])
        return shared if unchanged else head
    if not torch.equal(before[HEAD].to(head.dtype), head):
        lengths = head.float().norm(dim=1)
        if (lengths - 1).abs().max() > 0.01:
            raise ModelError(
                'the adapter trained the head, and the original code divides its rows by their lengths, '
                f'which are now {lengths.min():.3f} to {lengths.max():.3f}: its answers would change. '
                'Merge without --layout original.'
            )
        return shared if legacy.head_from_embedding else head
    if legacy.head_from_embedding:
        return shared
    found = next(tensor for name, tensor in WeightFiles(legacy.folder).tensors() if name == old)
    return found.to(head.dtype)


def write_shards(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], limit: int) -> int:
    """Write safetensors files of at most `limit` bytes (a larger tensor has its own) and an index; return their number.

    Only the tensors of one file are held at a time.
    """
    written: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    total = size = 0

    def flush() -> None:
        save_file(unshared(pending), folder / f'part-{len(written)}.safetensors', metadata={'format': 'pt'})
        written.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and size + tensor.nbytes > limit:
            flush()
            size = 0
        pending[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(written) == 1:
        (folder / 'part-0.safetensors').rename(folder / 'model.safetensors')
        return 1
    place = {}
    for i, names in enumerate(written):
        final = f'model-{i + 1:05d}-of-{len(written):05d}.safetensors'
        (folder / f'part-{i}.safetensors').rename(folder / final)
        place |= dict.fromkeys(names, final)
    _write_json(folder / 'model.safetensors.index.json', dict(metadata=dict(total_size=total), weight_map=place))
    return len(written)


def _finite(legacy: Legacy, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors:
        refuse_non_finite(legacy.folder, name, tensor)
        yield name, tensor


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')


def open_for_original(base: Path | None, name: str, variant: str | None) -> Legacy:
    """Return the base of a merge that is to be written in its own layout.

    Raises:
        ModelError: `name` has no layout of its own.
    """
    if base is None:
        raise ModelError(f'--layout original is for the layouts of 2023; {name} has the layout of transformers already')
    return open_legacy(base, variant)
