"""Write a tokenizer into an export so that transformers 4 and 5 read it alike, with the chat template of the training.

The files of the base are copied. Transformers 4 cannot read what transformers 5 writes itself: there
`extra_special_tokens` is a list, and some class names are new. Only the chat template is changed.
"""

import hashlib
import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..utils.quiet import quiet

_CONFIG, _TEMPLATE = 'tokenizer_config.json', 'chat_template.jinja'
# tekken.json is left out: where it lies, transformers and vLLM take the template of another library.
_FILES = (
    _CONFIG,
    'tokenizer.json',
    'special_tokens_map.json',
    'added_tokens.json',
    'vocab.*',
    'merges.txt',
    '*.model',
    '*.model.v*',
    '*.tiktoken',
)
# Classes that only transformers 5 knows, and what transformers 4 calls them.
_CLASSES = {'TokenizersBackend': 'PreTrainedTokenizerFast'}
# What transformers 5 leaves out of its own file, and the classes of transformers 4 go by.
_LEFT_OUT = ('add_bos_token', 'add_eos_token', 'legacy')


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
    """Write `tokenizer` into `folder`: its own files where they still describe it, else those that transformers makes.

    Args:
        folder: Where to write; other files there stay.
        tokenizer: As loaded from a folder or from the hub, and perhaps changed since.
        template: The chat template; None: the one it has.
    """
    if template is not None:
        tokenizer.chat_template = template
    several = isinstance(tokenizer.chat_template, dict)  # which have files of their own
    sources = [] if several else _sources(str(tokenizer.name_or_path), tokenizer)
    states = tuple((path, path.stat().st_mtime_ns) for path in sources)
    own: dict[str, Any] = {}
    if sources and _read(sources[0].parent, states) == _described(tokenizer):
        for path in sources:
            shutil.copyfile(path, folder / path.name)
    else:
        tokenizer.save_pretrained(folder)
        own = next((_json(path) for path in sources if path.name == _CONFIG), {})
    _finish(folder, tokenizer.chat_template, own)


def _sources(name: str, tokenizer: PreTrainedTokenizerBase) -> list[Path]:
    """Return the files of the folder or hub model `name`; none if they need code of their own, or are not all here."""
    folder = Path(name).expanduser() if name else Path()
    if not name or not folder.is_dir():
        folder = _cached(name)
    if folder is None or not (folder / _CONFIG).is_file():
        return []
    if 'auto_map' in _json(folder / _CONFIG):
        return []
    names = {*_FILES, *(file for file in tokenizer.vocab_files_names.values() if '/' not in file)}
    return sorted({path for form in names for path in folder.glob(form) if path.is_file()})


def _cached(name: str) -> Path | None:
    """Return the folder in the hub's cache from which the tokenizer `name` was loaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, _CONFIG)
    except HFValidationError:  # neither a folder nor the name of a model
        return None
    return Path(found).parent if isinstance(found, str) else None


def _finish(folder: Path, template: Any, own: dict[str, Any]) -> None:
    """Make tokenizer_config.json readable by transformers 4; put the template where each reader looks for it.

    Transformers takes chat_template.jinja before the entry of tokenizer_config.json; readers before 4.49 know the entry
    only. Both hold the same text, so none is out of date.
    """
    path = folder / _CONFIG
    before = _json(path)
    values = {key: own[key] for key in _LEFT_OUT if key in own} | before
    if values.get('tokenizer_class') in _CLASSES:
        values['tokenizer_class'] = _CLASSES[values['tokenizer_class']]
    if isinstance(values.get('extra_special_tokens'), list):
        values['additional_special_tokens'] = values.pop('extra_special_tokens')
    if isinstance(template, str):
        values['chat_template'] = template
        (folder / _TEMPLATE).write_text(template, encoding='utf-8')
    if values != before:
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')


@lru_cache(maxsize=4)
def _read(folder: Path, _states: tuple) -> str | None:
    """Return what the tokenizer in `folder` is read as; `_states` tells when its files were changed."""
    try:
        with quiet():
            return _described(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    except Exception:  # the tokenizers library raises nothing narrower
        return None


def _described(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides the tokens of a text, without truncation and padding, which each call sets."""
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    rules = json.dumps(tokenizer.get_vocab()) if backend is None else backend.to_str()
    if backend is not None and (backend.truncation or backend.padding):
        rules = type(backend).from_str(rules)
        rules.no_truncation()
        rules.no_padding()
        rules = rules.to_str()
    special = tokenizer.special_tokens_map, sorted(tokenizer.all_special_tokens)
    settings = tokenizer.model_max_length, tokenizer.padding_side, tokenizer.truncation_side
    return hashlib.sha256(repr((rules, special, settings)).encode()).hexdigest()


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding='utf-8'))
