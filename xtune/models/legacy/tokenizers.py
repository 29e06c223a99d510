"""Convert the tokenizer of a 2023 remote-code checkpoint to one that transformers loads without the repository's code.

The converted tokenizer is cached under the hash of its source files; the checkpoint's folder is never written to.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...errors import ModelError
from ...utils.cache import cache_folder, cache_root
from ...utils.quiet import quiet
from ..loading.json_files import read_config
from .chat import CHAT_FORMATS, TEMPLATES, chat_template, is_chat
from .variants import variant_of
from .vocabulary import build_tokenizer

_VERSION = 2  # increase when the conversion changes, to invalidate the cache
_SOURCE_FILES = (
    'tokenizer_config.json',
    'special_tokens_map.json',
    'added_tokens.json',
    'generation_config.json',
    'config.json',
)
# Arguments of from_pretrained for downloads; these checkpoints are already local.
DOWNLOAD_ARGUMENTS = ('trust_remote_code', 'revision', 'token', 'cache_dir', 'local_files_only', 'force_download')


def legacy_tokenizer(folder: Path, variant: str | None = None, **arguments: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `folder`, from the cache if it was converted before.

    Args:
        folder: A local folder with a 2023 remote-code checkpoint.
        variant: Its variant, if config.json is ambiguous.
        arguments: Arguments of AutoTokenizer.from_pretrained, such as eos_token.

    Raises:
        ModelError: Its file is missing or damaged, or cannot be converted exactly.
    """
    values = read_config(folder)
    variant = variant_of(folder, values, variant)
    source = tokenizer_file(folder, variant)
    if not source.is_file():
        present = ', '.join(sorted(p.name for p in folder.iterdir())[:8])
        raise ModelError(f'{folder} has no {source.name}, the tokenizer of {variant}; it contains {present}')
    cached = cache_root() / 'tokenizers' / _cache_key(folder, source, variant, is_chat(folder, variant))
    if not (cached / 'tokenizer.json').is_file():
        cache_folder('tokenizers')
        tokenizer = build_tokenizer(folder, source, variant)
        tokenizer.chat_template = chat_template(folder, variant)
        _write_to_cache(tokenizer, cached)
    with quiet():
        arguments = {key: value for key, value in arguments.items() if key not in DOWNLOAD_ARGUMENTS}
        return AutoTokenizer.from_pretrained(cached, trust_remote_code=False, **arguments)


def tokenizer_file(folder: Path, variant: str) -> Path:
    """Return the path of the vocabulary of a variant, whether it exists or not."""
    return folder / ('qwen.tiktoken' if variant == 'qwen' else 'tokenizer.model')


def stop_ids(folder: Path, variant: str) -> list[int]:
    """Return the ids of eos and of a chat model's other stop tokens; [] if `folder` has no tokenizer."""
    if not tokenizer_file(folder, variant).is_file():
        return []
    tokenizer = legacy_tokenizer(folder, variant)
    vocab, stops = tokenizer.get_vocab(), CHAT_FORMATS[variant][1] if is_chat(folder, variant) else ()
    return [tokenizer.eos_token_id, *(vocab[token] for token in stops if token in vocab)]


def _cache_key(folder: Path, source: Path, *more: Any) -> str:
    """Return a hash of everything that affects the tokenizer."""
    digest = hashlib.sha256(repr((_VERSION, more)).encode())
    for path in (source, *(folder / name for name in _SOURCE_FILES)):
        content = path.read_bytes() if path.is_file() else b''
        digest.update(f'{path.name} {len(content)}\n'.encode() + content)
    for path in sorted(TEMPLATES.glob('*.jinja')):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _write_to_cache(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write `tokenizer` to `folder` atomically; if another process writes it at the same time, the first one wins."""
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix='.making-'))
    try:
        tokenizer.save_pretrained(staging)
        os.replace(staging, folder)
    except OSError:
        if not (folder / 'tokenizer.json').is_file():
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
