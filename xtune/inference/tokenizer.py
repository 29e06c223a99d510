"""Load the tokenizer of an adapter or of its base."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_json import tokenizer_error
from ..models.loading.processor_template import with_processor_template
from ..utils.quiet import quiet
from .base_config import revision_argument


def load_tokenizer_of(
    *folders: str | None, variant: str | None = None, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the first of `folders` that has one. Pass the adapter before its base.

    Args:
        folders: Folders or hub names; None is skipped.
        variant: Variant of a 2023 remote-code checkpoint, if its config.json is ambiguous.
        revision: Branch, tag or commit of the hub names.

    Raises:
        ModelError: None of them has a tokenizer, or it cannot be loaded.
    """
    for name in folders:
        folder = None if name is None else legacy_folder(name, weights=False, revision=revision)
        if folder is not None:
            from ..models.legacy.tokenizers import legacy_tokenizer

            return legacy_tokenizer(folder, variant)
        if name is None or (Path(name).is_dir() and not (Path(name) / 'tokenizer_config.json').is_file()):
            continue
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **revision_argument(revision))
                return with_processor_template(tokenizer, name)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise tokenizer_error(name, error) from error
    raise ModelError(f'there is no tokenizer in {" or ".join(str(f) for f in folders if f)}')
