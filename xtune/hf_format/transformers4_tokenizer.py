"""Write tokenizer files that transformers 4 and 5 read alike, with the chat template of the training.

The base's files are copied and only the chat template is changed: transformers 4 cannot read the files that
transformers 5 saves, in which `extra_special_tokens` is a list and some class names are new.
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
# Without tekken.json: if it exists, transformers and vLLM use the template of another library.
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
# Classes of transformers 5 -> their equivalents in transformers 4.
_V4_CLASSES = {'TokenizersBackend': 'PreTrainedTokenizerFast'}
# Keys that transformers 5 does not save and the classes of transformers 4 need.
_V4_KEYS = ('add_bos_token', 'add_eos_token', 'legacy')


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
    """Write `tokenizer` into `folder`: copy its source files if they are up to date, else save it by transformers.

    Args:
        folder: The target folder; its other files stay.
        tokenizer: A tokenizer from a folder or the hub, possibly changed after loading.
        template: The chat template; None keeps that of `tokenizer`.
    """
    if template is not None:
        tokenizer.chat_template = template
    several_templates = isinstance(tokenizer.chat_template, dict)  # stored in separate files
    sources = [] if several_templates else _source_files(str(tokenizer.name_or_path), tokenizer)
    timestamps = tuple((path, path.stat().st_mtime_ns) for path in sources)
    source_config: dict[str, Any] = {}
    if sources and _hash_of_folder(sources[0].parent, timestamps) == _hash_of(tokenizer):
        for path in sources:
            shutil.copyfile(path, folder / path.name)
    else:
        tokenizer.save_pretrained(folder)
        source_config = next((_read_json(path) for path in sources if path.name == _CONFIG), {})
    _make_readable_by_v4(folder, tokenizer.chat_template, source_config)


def _source_files(name: str, tokenizer: PreTrainedTokenizerBase) -> list[Path]:
    """Return the tokenizer files of the folder or hub model `name`; [] if they need remote code or are not local."""
    folder = Path(name).expanduser() if name else Path()
    if not name or not folder.is_dir():
        folder = _cached_folder(name)
    if folder is None or not (folder / _CONFIG).is_file():
        return []
    if 'auto_map' in _read_json(folder / _CONFIG):
        return []
    patterns = {*_FILES, *(file for file in tokenizer.vocab_files_names.values() if '/' not in file)}
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _cached_folder(name: str) -> Path | None:
    """Return the folder in the hub's cache from which the tokenizer `name` was loaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, _CONFIG)
    except HFValidationError:  # neither a folder nor the name of a model
        return None
    return Path(path).parent if isinstance(path, str) else None


def _make_readable_by_v4(folder: Path, template: Any, source_config: dict[str, Any]) -> None:
    """Make tokenizer_config.json readable by transformers 4, and write the template to both of its places.

    transformers prefers chat_template.jinja to the entry of tokenizer_config.json; versions before 4.49 read only the
    entry. Both get the same text, so neither is outdated.
    """
    path = folder / _CONFIG
    before = _read_json(path)
    values = {key: source_config[key] for key in _V4_KEYS if key in source_config} | before
    if values.get('tokenizer_class') in _V4_CLASSES:
        values['tokenizer_class'] = _V4_CLASSES[values['tokenizer_class']]
    if isinstance(values.get('extra_special_tokens'), list):
        values['additional_special_tokens'] = values.pop('extra_special_tokens')
    if isinstance(template, str):
        values['chat_template'] = template
        (folder / _TEMPLATE).write_text(template, encoding='utf-8')
    if values != before:
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')


@lru_cache(maxsize=4)
def _hash_of_folder(folder: Path, _timestamps: tuple) -> str | None:
    """Return `_hash_of` the tokenizer in `folder`; `_timestamps` of its files invalidate the cache."""
    try:
        with quiet():
            return _hash_of(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    except Exception:  # the tokenizers library raises nothing narrower
        return None


def _hash_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all settings that affect tokenization, except truncation and padding, which each call sets."""
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


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding='utf-8'))
