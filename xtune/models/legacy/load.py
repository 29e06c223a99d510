"""Build the model of a folder in an old layout: names changed and tensors split while they are read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from ...errors import ModelError
from ..loading.weight_files import WeightFiles, listed, refuse_non_finite, refuse_packed
from .families import Legacy, open_legacy
from .recognise import read_json
from .tensors import EMBEDDING, HEAD, is_buffer, joined_names, native_names, normalised, split
from .tokenizers import stop_ids

# What from_pretrained takes for reading a repository; here it is read already.
_OF_REPOSITORIES = ('trust_remote_code', 'revision', 'token', 'cache_dir', 'local_files_only', 'force_download')


def load_legacy(
    folder: Path,
    variant: str | None = None,
    dtype: Any = None,
    config: PreTrainedConfig | None = None,
    **arguments: Any,
) -> PreTrainedModel:
    """Return the model of `folder` in a class of transformers, in evaluation mode.

    Args:
        folder: A local folder in an old layout.
        variant: Which one, where config.json does not tell.
        dtype: Type of the weights; None or 'auto': as they are stored.
        config: What the model is built from; None: what the folder says.
        arguments: What from_pretrained takes: device_map, quantization_config, attn_implementation, ..., and keys of
            the config, such as rope_parameters.

    Raises:
        ModelError: The folder is damaged, ambiguous or not supported.
    """
    legacy = open_legacy(folder, variant)
    legacy = replace(legacy, config=config or legacy.config)
    for key in sorted(set(arguments) & set(legacy.config.to_dict())):
        setattr(legacy.config, key, arguments.pop(key))
    weights = WeightFiles(folder)
    refuse_packed(folder, weights)
    cls = check_tensors(legacy, weights)
    state = {}
    for name, tensor in native_tensors(legacy, weights):
        refuse_non_finite(folder, name, tensor)
        state[name] = tensor
    if dtype in (None, 'auto'):
        dtype = _stored(legacy, next(iter(state.values())).dtype)
    for key in _OF_REPOSITORIES:
        arguments.pop(key, None)
    model, info = cls.from_pretrained(
        None, config=legacy.config, state_dict=state, dtype=dtype, output_loading_info=True, **arguments
    )
    wrong = [*info['missing_keys'], *info['unexpected_keys'], *(key for key, *_ in info['mismatched_keys'])]
    assert not wrong, f'check_tensors let {wrong} pass'
    model.generation_config = generation_config(legacy)
    return model


def legacy_dtype(folder: Path, variant: str | None = None) -> torch.dtype:
    """Return the type in which the weights of `folder` are stored, as config.json says, else as they are.

    Raises:
        ModelError: The folder is damaged, ambiguous or not supported.
    """
    return _stored(open_legacy(folder, variant), file_dtype(folder))


def file_dtype(folder: Path) -> torch.dtype:
    """Return the type of the tensors in the files of `folder`, whatever config.json says.

    Raises:
        ModelError: A file is missing or damaged.
    """
    return next(tensor.dtype for name, tensor in WeightFiles(folder).tensors() if not is_buffer(name))


def remarks(folder: Path, variant: str | None, max_length: int, trains_all: bool) -> Iterator[str]:
    """Yield what a user should know before training: where the native class departs from the original code."""
    legacy = open_legacy(folder, variant)
    if variant is None and legacy.variant == 'baichuan_13b' and legacy.config.vocab_size != 64000:
        yield f'{folder} is taken for Baichuan 13B of the first generation; if it is not, set llm.variant=baichuan2_13b'
    if legacy.note and max_length > legacy.trained_length:
        yield f'max_length {max_length} is above the {legacy.trained_length} tokens {folder} is made for; {legacy.note}'
    if legacy.norm_head and trains_all:
        yield (
            'the rows of the head start at length 1, as the original code keeps them in every step; '
            'here they train freely, and the exported model has them as trained'
        )


def _stored(legacy: Legacy, first: torch.dtype) -> torch.dtype:
    return legacy.config.dtype if isinstance(legacy.config.dtype, torch.dtype) else first


def native_tensors(legacy: Legacy, weights: WeightFiles) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the native tensors, one after another; those of a joined one are views of it."""
    for old, tensor in weights.tensors():
        if is_buffer(old):
            continue
        names = native_names(legacy.table, old)
        if names == (HEAD,) and _is_tied(legacy):
            continue  # the original code ties it to the embedding, whatever the file holds
        for name, part in split(names, tensor, legacy.rows):
            yield name, normalised(part) if name == HEAD and legacy.norm_head else part
            if name == EMBEDDING and _makes_head(legacy, weights):
                yield HEAD, normalised(part) if legacy.norm_head else part.clone()


def _is_tied(legacy: Legacy) -> bool:
    return legacy.config.tie_word_embeddings or (legacy.norm_head and legacy.head_from_embedding)


def _makes_head(legacy: Legacy, weights: WeightFiles) -> bool:
    """Tell whether the head is made of the embedding: shared by the original, and apart in the native class."""
    [head] = [old for old, natives in legacy.table.items() if natives == ('lm_head',)]
    return legacy.head_from_embedding and (legacy.norm_head or f'{head}.weight' not in weights.shapes)


def check_tensors(legacy: Legacy, weights: WeightFiles) -> type[PreTrainedModel]:
    """Compare names and shapes of the files with what config.json promises, in the names of the files.

    Returns:
        The class that holds the model.

    Raises:
        ModelError: A tensor is missing, of another shape, or unknown.
    """
    with torch.device('meta'):
        model = AutoModelForCausalLM.from_config(legacy.config)
    native = {name: tuple(p.shape) for name, p in model.named_parameters()}
    wanted = {
        old: (sum(native[part][0] for part in parts), *native[parts[0]][1:])
        for old, parts in joined_names(legacy.table, list(native)).items()
    }
    found = {name: shape for name, shape in weights.shapes.items() if not is_buffer(name)}
    spare = {old for old in found if native_names(legacy.table, old) == (HEAD,)}
    if _makes_head(legacy, weights):
        wanted = {old: shape for old, shape in wanted.items() if native_names(legacy.table, old) != (HEAD,)}
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise ModelError(f'{legacy.folder} lacks {listed(missing)}, which config.json ({legacy.variant}) calls for')
    wrong = sorted(name for name in wanted if wanted[name] != found[name])
    if wrong:
        first = wrong[0]
        raise ModelError(
            f'{legacy.folder}: {first} has the shape {list(found[first])}, config.json ({legacy.variant}) calls for '
            f'{list(wanted[first])}' + (f'; so do {len(wrong) - 1} more' if len(wrong) > 1 else '')
        )
    unknown = sorted(set(found) - set(wanted) - spare)
    if unknown:
        raise ModelError(
            f'{legacy.folder} holds {listed(unknown)}, of which config.json ({legacy.variant}) says nothing'
        )
    return type(model)


def generation_config(legacy: Legacy) -> GenerationConfig:
    """Return the folder's generation settings, with its stop tokens under the name that transformers reads."""
    values = read_json(legacy.folder / 'generation_config.json')
    stops = [ids[0] for ids in values.pop('stop_words_ids', None) or () if len(ids) == 1]
    stops += stop_ids(legacy.folder, legacy.variant)
    eos = values.get('eos_token_id', legacy.config.eos_token_id)
    eos = [eos] if isinstance(eos, int) else list(eos or ())
    values['eos_token_id'] = list(dict.fromkeys([*eos, *stops])) or None
    for key in ('bos_token_id', 'pad_token_id'):
        values.setdefault(key, getattr(legacy.config, key))
    for key in ('transformers_version', '_from_model_config'):
        values.pop(key, None)
    return GenerationConfig(**values)
