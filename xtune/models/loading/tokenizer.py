"""Load the tokenizer of the base model."""

from functools import partial

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...config.loader_keys import check_tokenizer_keys
from ...errors import ModelError
from ...utils.quiet import quiet
from ..legacy.hub import legacy_folder
from .config_json import tokenizer_error
from .folder_checks import check_model_folder, check_vocabulary
from .processor_template import with_processor_template


def load_tokenizer(base_model: str, load: partial, variant: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `base_model`.

    Args:
        base_model: Hub name or local folder.
        load: Loads the tokenizer when called; its keywords are the section `tokenizer`.
        variant: The model's `variant`, for remote-code checkpoints.

    Raises:
        ModelError: The tokenizer cannot be loaded.
        ConfigError: A key of the section `tokenizer` has no effect.
    """
    keywords = load.keywords
    check_model_folder(base_model, weights=False, allow_remote_code=bool(keywords.get('trust_remote_code')))
    try:
        with quiet():
            tokenizer = with_processor_template(_load(base_model, load, variant), base_model)
    except ModelError:
        raise
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise tokenizer_error(base_model, error) from error
    check_tokenizer_keys(keywords, tokenizer)
    check_vocabulary(base_model, max(tokenizer.get_vocab().values(), default=0))
    return tokenizer


def _load(base_model: str, load: partial, variant: str | None) -> PreTrainedTokenizerBase:
    folder = legacy_folder(base_model, weights=False, revision=load.keywords.get('revision'))
    if folder is None or load.func != AutoTokenizer.from_pretrained:
        return load()
    from ..legacy.tokenizers import legacy_tokenizer

    return legacy_tokenizer(folder, variant, **load.keywords)
