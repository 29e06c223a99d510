"""Read the chat template of a processor for a tokenizer that has none.

Older vision-language checkpoints, such as LLaVA, store it in chat_template.json, which AutoTokenizer does not read.
"""

from transformers import PreTrainedTokenizerBase

from .folder_checks import local_folder
from .json_files import read_json


def with_processor_template(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Return `tokenizer`, loaded from the folder or hub model `name`, with the processor's template if it has none.

    Raises:
        ModelError: chat_template.json is damaged.
    """
    folder = None if tokenizer.chat_template else local_folder(name)
    template = None if folder is None else read_json(folder / 'chat_template.json').get('chat_template')
    if isinstance(template, str):
        tokenizer.chat_template = template
    return tokenizer
