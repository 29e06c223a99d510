"""Check a model folder's config.json, and the small JSON files beside it, before anything slow happens."""

from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean
from ..legacy.recognise import VARIANTS, read_json

# Names of files that hold a vocabulary.
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
# How many experts there are, by model.
_EXPERTS = ('num_local_experts', 'n_routed_experts', 'num_experts')
_BESIDE = ('generation_config.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json')


def check_config(folder: Path, values: dict[str, Any], own_code: bool) -> None:
    """Refuse a config.json, of content `values`, or a file beside it that no model can be built from.

    Raises:
        ModelError: A size is no positive number, the kind or its quantisation is unknown, the sizes do not go
            together, or a file beside it is damaged.
    """
    for key in _COUNTS:
        value = values.get(key, 1)
        if not isinstance(value, (list, type(None))) and (not isinstance(value, int) or value < 1):
            raise ModelError(f'{folder}/config.json: `{key}` must be a positive whole number, got {value!r}')
    _check_quantisation(folder, values)
    for name in _BESIDE:
        beside = read_json(folder / name)
        if name == _BESIDE[0]:
            _check_stops(folder / name, beside.get('eos_token_id'))
    _check_kind(folder, values, own_code)


def _check_quantisation(folder: Path, values: dict[str, Any]) -> None:
    given = values.get('quantization_config') or {}
    if not isinstance(given, dict):
        raise ModelError(f'{folder}/config.json: `quantization_config` must be a JSON object, got {given!r}')
    method = given.get('quant_method')
    if method is not None:
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as METHODS

        known = {*METHODS, 'bitsandbytes'}  # what it writes for both bitsandbytes_4bit and bitsandbytes_8bit
        if method not in known:  # transformers would load the packed weights as if they were not quantised
            raise ModelError(
                f'{folder}/config.json has the quantization method `{method}`, which transformers does not know'
                f'{did_you_mean(method, known)}'
            )


def _check_stops(path: Path, stops: Any) -> None:
    listed = stops if isinstance(stops, list) else [stops]
    if stops is not None and not all(isinstance(stop, int) for stop in listed):
        raise ModelError(f'{path}: `eos_token_id` must be the id of a token or a list of ids, got {stops!r}')


def _check_kind(folder: Path, values: dict[str, Any], own_code: bool) -> None:
    kind = values.get('model_type')
    if kind is not None and not isinstance(kind, str):
        raise ModelError(f'{folder}/config.json: `model_type` must be a name such as "llama", got {kind!r}')
    if kind in VARIANTS:
        return
    from transformers import CONFIG_MAPPING

    if kind in CONFIG_MAPPING:
        _check_sizes(folder)
    elif 'auto_map' not in values or not own_code:
        if kind is None:
            raise ModelError(f'{folder}/config.json has no `model_type`, which says what kind of model it is')
        code = '; the code in the folder (auto_map) is not run here' if 'auto_map' in values else ''
        raise ModelError(
            f'{folder}/config.json has the model type `{kind}`, which transformers does not know{code}'
            + did_you_mean(kind, [*CONFIG_MAPPING.keys(), *VARIANTS])
        )


def _check_sizes(folder: Path) -> None:
    """Let the config class of transformers check types, and sizes against each other."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from ...utils.quiet import quiet

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        used, *counts = (getattr(config, name, None) for name in ('num_experts_per_tok', *_EXPERTS))
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(f'{folder}/config.json is refused: {reason(error)}') from error
    # No config class compares these two; a forward pass does. With one expert, layers may be without a choice (Jamba).
    experts = next(filter(None, counts), None)
    if used and experts and 1 < experts < used:
        raise ModelError(f'{folder}/config.json: `num_experts_per_tok` is {used}, but the model has {experts} experts')


def reason(error: Exception) -> str:
    """Return what a library says is wrong, in one line, without the name of its own check."""
    cause = error.__cause__
    text = str(cause if type(error).__name__.startswith('StrictDataclass') and cause else error)
    text = ' '.join(text.split())
    return f'{type(error).__name__} {text}' if isinstance(error, KeyError) else text or type(error).__name__


def tokenizer_error(name: str, error: Exception) -> ModelError:
    """Return what a person can do about the tokenizer of the folder or hub model `name`, which raised `error`."""
    # What transformers says without a file names three mechanisms of its own.
    absent = Path(name).is_dir() and not any(any(Path(name).glob(form)) for form in VOCABULARIES)
    why = 'the folder has no tokenizer file' if absent else reason(error)[:200]
    return ModelError(
        f'the tokenizer of {name} cannot be loaded: {why}; it should be in tokenizer.json, tokenizer.model, or '
        'vocab.json and merges.txt, which come with the model'
    )
