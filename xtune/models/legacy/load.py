"""Load a 2023 remote-code checkpoint: rename tensors and split fused ones while reading."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from ...errors import ModelError
from ..loading.json_files import read_json
from ..loading.verify import refuse_non_finite
from ..loading.weight_files import WeightFiles, listed, refuse_packed
from .checkpoint import LegacyCheckpoint
from .families import open_legacy
from .tensors import EMBEDDING, LM_HEAD, fused_names, is_buffer, native_names, normalize_rows, split_fused
from .tokenizers import DOWNLOAD_ARGUMENTS, stop_ids


def load_legacy(
    folder: Path,
    variant: str | None = None,
    dtype: Any = None,
    config: PreTrainedConfig | None = None,
    **arguments: Any,
) -> PreTrainedModel:
    """Return the model of `folder` in a native class of transformers, in evaluation mode.

    Args:
        folder: A local folder with a 2023 remote-code checkpoint.
        variant: Its variant, if config.json is ambiguous.
        dtype: Type of the weights; None or 'auto' keeps the stored type.
        config: Config of the model; None uses that of the folder.
        arguments: Arguments of from_pretrained (device_map, quantization_config, attn_implementation, ...) and keys of
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
        dtype = _stored_dtype(legacy, next(iter(state.values())).dtype)
    for key in DOWNLOAD_ARGUMENTS:
        arguments.pop(key, None)
    model, info = cls.from_pretrained(
        None, config=legacy.config, state_dict=state, dtype=dtype, output_loading_info=True, **arguments
    )
    wrong = [*info['missing_keys'], *info['unexpected_keys'], *(key for key, *_ in info['mismatched_keys'])]
    assert not wrong, f'check_tensors let {wrong} pass'
    model.generation_config = generation_config(legacy)
    return model


def legacy_dtype(folder: Path, variant: str | None = None) -> torch.dtype:
    """Return the stored type of the weights of `folder`: that of config.json, else that of the files.

    Raises:
        ModelError: The folder is damaged, ambiguous or not supported.
    """
    return _stored_dtype(open_legacy(folder, variant), file_dtype(folder))


def file_dtype(folder: Path) -> torch.dtype:
    """Return the type of the tensors in the files of `folder`, ignoring config.json.

    Raises:
        ModelError: A file is missing or damaged.
    """
    return next(tensor.dtype for name, tensor in WeightFiles(folder).tensors() if not is_buffer(name))


def training_notes(folder: Path, variant: str | None, max_length: int, full_finetuning: bool) -> Iterator[str]:
    """Yield notes for the user, before training, on differences between the native class and the original code."""
    legacy = open_legacy(folder, variant)
    if variant is None and legacy.variant == 'baichuan_13b' and legacy.config.vocab_size != 64000:
        yield f'{folder} is assumed to be Baichuan 13B, first generation; if it is not, set llm.variant=baichuan2_13b'
    if legacy.note and max_length > legacy.trained_length:
        yield f'max_length {max_length} exceeds the context length of {folder}, {legacy.trained_length}; {legacy.note}'
    if legacy.norm_head and full_finetuning:
        yield (
            'the rows of lm_head start with norm 1, to which the original code normalizes them in every step; '
            'here they are trained without normalization, and exported as trained'
        )


def _stored_dtype(legacy: LegacyCheckpoint, of_files: torch.dtype) -> torch.dtype:
    return legacy.config.dtype if isinstance(legacy.config.dtype, torch.dtype) else of_files


def native_tensors(legacy: LegacyCheckpoint, weights: WeightFiles) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and value of the native tensors; the parts of a fused tensor are views of it."""
    for old, tensor in weights.tensors():
        if is_buffer(old):
            continue
        names = native_names(legacy.table, old)
        if names == (LM_HEAD,) and _is_tied(legacy):
            continue  # the original code ties it to the embedding and ignores the stored tensor
        for name, part in split_fused(names, tensor, legacy.qkv_rows):
            yield name, normalize_rows(part) if name == LM_HEAD and legacy.norm_head else part
            if name == EMBEDDING and _copies_embedding(legacy, weights):
                yield LM_HEAD, normalize_rows(part) if legacy.norm_head else part.clone()


def _is_tied(legacy: LegacyCheckpoint) -> bool:
    return legacy.config.tie_word_embeddings or (legacy.norm_head and legacy.head_from_embedding)


def _copies_embedding(legacy: LegacyCheckpoint, weights: WeightFiles) -> bool:
    """Return whether lm_head is a copy of the embedding: tied in the original code, untied in the native class."""
    [lm_head] = [old for old, natives in legacy.table.items() if natives == ('lm_head',)]
    return legacy.head_from_embedding and (legacy.norm_head or f'{lm_head}.weight' not in weights.shapes)


def check_tensors(legacy: LegacyCheckpoint, weights: WeightFiles) -> type[PreTrainedModel]:
    """Compare names and shapes of the stored tensors with those that config.json requires.

    Returns:
        The native model class.

    Raises:
        ModelError: A tensor is missing, has another shape, or is unknown.
    """
    with torch.device('meta'):
        model = AutoModelForCausalLM.from_config(legacy.config)
    native = {name: tuple(p.shape) for name, p in model.named_parameters()}
    required = {
        old: (sum(native[part][0] for part in parts), *native[parts[0]][1:])
        for old, parts in fused_names(legacy.table, list(native)).items()
    }
    stored = {name: shape for name, shape in weights.shapes.items() if not is_buffer(name)}
    optional = {old for old in stored if native_names(legacy.table, old) == (LM_HEAD,)}
    if _copies_embedding(legacy, weights):
        required = {old: shape for old, shape in required.items() if native_names(legacy.table, old) != (LM_HEAD,)}
    missing = sorted(set(required) - set(stored))
    if missing:
        raise ModelError(f'{legacy.folder} lacks {listed(missing)}, which config.json ({legacy.variant}) requires')
    wrong = sorted(name for name in required if required[name] != stored[name])
    if wrong:
        first = wrong[0]
        raise ModelError(
            f'{legacy.folder}: {first} has the shape {list(stored[first])}, config.json ({legacy.variant}) requires '
            f'{list(required[first])}' + (f'; {len(wrong) - 1} more tensors differ' if len(wrong) > 1 else '')
        )
    unknown = sorted(set(stored) - set(required) - optional)
    if unknown:
        raise ModelError(
            f'{legacy.folder} contains {listed(unknown)}, which the model of config.json ({legacy.variant}) does not '
            'have'
        )
    return type(model)


def generation_config(legacy: LegacyCheckpoint) -> GenerationConfig:
    """Return the folder's generation config, with its stop tokens as eos_token_id, which transformers reads."""
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
