"""Check a model folder's config.json, and the small JSON files next to it, before anything slow happens."""

from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean
from ..legacy.variants import VARIANTS
from .json_files import read_json

# Name patterns of vocabulary files.
VOCABULARIES = ('tokenizer.json', 'vocab.*', '*.model', '*.tiktoken')

_COUNTS = (
    'num_hidden_layers',
    'num_layers',
    'hidden_size',
    'num_attention_heads',
    'num_key_value_heads',
    'max_position_embeddings',
    'vocab_size',
    'padded_vocab_size',
)
# Names of the number of experts in different model families.
_EXPERTS = ('num_local_experts', 'n_routed_experts', 'num_experts')
_OTHER_FILES = ('generation_config.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json')


def check_config(folder: Path, values: dict[str, Any], allow_remote_code: bool) -> None:
    """Refuse a config.json with the content `values`, or a JSON file next to it, that is invalid.

    Raises:
        ModelError: A size is not a positive integer, the model type or quantization method is unknown, sizes are
            inconsistent, or another JSON file is damaged.
    """
    for key in _COUNTS:
        value = values.get(key, 1)
        if not isinstance(value, (list, type(None))) and (not isinstance(value, int) or value < 1):
            raise ModelError(f'{folder}/config.json: `{key}` must be a positive whole number, got {value!r}')
    _check_quantization(folder, values)
    for name in _OTHER_FILES:
        content = read_json(folder / name)
        if name == 'generation_config.json':
            _check_stop_ids(folder / name, content.get('eos_token_id'))
    _check_model_type(folder, values, allow_remote_code)


def _check_quantization(folder: Path, values: dict[str, Any]) -> None:
    quantization = values.get('quantization_config') or {}
    if not isinstance(quantization, dict):
        raise ModelError(f'{folder}/config.json: `quantization_config` must be a JSON object, got {quantization!r}')
    method = quantization.get('quant_method')
    if method is not None:
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as METHODS

        known = {*METHODS, 'bitsandbytes'}  # the name in files for both bitsandbytes_4bit and bitsandbytes_8bit
        if method not in known:  # transformers would load the packed weights as if they were not quantized
            raise ModelError(
                f'{folder}/config.json has the quantization method `{method}`, which transformers does not know'
                f'{did_you_mean(method, known)}'
            )


def _check_stop_ids(path: Path, stop_ids: Any) -> None:
    as_list = stop_ids if isinstance(stop_ids, list) else [stop_ids]
    if stop_ids is not None and not all(isinstance(stop_id, int) for stop_id in as_list):
        raise ModelError(f'{path}: `eos_token_id` must be a token id or a list of token ids, got {stop_ids!r}')


def _check_model_type(folder: Path, values: dict[str, Any], allow_remote_code: bool) -> None:
    model_type = values.get('model_type')
    if model_type is not None and not isinstance(model_type, str):
        raise ModelError(f'{folder}/config.json: `model_type` must be a name such as "llama", got {model_type!r}')
    if model_type in VARIANTS:
        return
    from transformers import CONFIG_MAPPING

    if model_type in CONFIG_MAPPING:
        _check_by_config_class(folder)
    elif 'auto_map' not in values or not allow_remote_code:
        if model_type is None:
            raise ModelError(f'{folder}/config.json has no `model_type`, so the model class is unknown')
        code = '; the code in the folder (auto_map) is not run here' if 'auto_map' in values else ''
        raise ModelError(
            f'{folder}/config.json has the model type `{model_type}`, which transformers does not know{code}'
            + did_you_mean(model_type, [*CONFIG_MAPPING.keys(), *VARIANTS])
        )


def _check_by_config_class(folder: Path) -> None:
    """Check types and the consistency of sizes with the config class of transformers."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from ...utils.quiet import quiet

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        active, *counts = (getattr(config, name, None) for name in ('num_experts_per_tok', *_EXPERTS))
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(f'{folder}/config.json is invalid: {reason(error)}') from error
    # No config class compares these two; only a forward pass fails. A single expert may need no router (Jamba).
    experts = next(filter(None, counts), None)
    if active and experts and 1 < experts < active:
        raise ModelError(
            f'{folder}/config.json: `num_experts_per_tok` is {active}, but the model has {experts} experts'
        )


def reason(error: Exception) -> str:
    """Return the message of a library's error on one line, without the wrapper of huggingface_hub's validation."""
    cause = error.__cause__
    text = str(cause if type(error).__name__.startswith('StrictDataclass') and cause else error)
    text = ' '.join(text.split())
    return f'{type(error).__name__} {text}' if isinstance(error, KeyError) else text or type(error).__name__


def tokenizer_error(name: str, error: Exception) -> ModelError:
    """Return the error for the tokenizer of the folder or hub model `name`, which raised `error`."""
    # Without any file the message of transformers only describes its internals.
    absent = Path(name).is_dir() and not any(any(Path(name).glob(pattern)) for pattern in VOCABULARIES)
    why = 'the folder has no tokenizer file' if absent else reason(error)[:200]
    return ModelError(
        f'the tokenizer of {name} cannot be loaded: {why}; it should be in tokenizer.json, tokenizer.model, or '
        'vocab.json and merges.txt, which come with the model'
    )
