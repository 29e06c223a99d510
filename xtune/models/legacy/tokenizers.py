"""The tokenizer of a folder in an old layout, as one that transformers loads without the repository's code.

It is made once and kept in the cache under the hash of its files; the folder itself is never written to.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...errors import ModelError
from ...templates import FOLDER
from ...utils.cache import cache_folder, cache_root
from ...utils.quiet import quiet
from .chat import CHAT, chat_template, is_chat
from .recognise import read_config, variant_of
from .vocabulary import build_tokenizer

_VERSION = 2  # counted up when the conversion changes, so that what was cached before is made again
_READ = (
    'tokenizer_config.json',
    'special_tokens_map.json',
    'added_tokens.json',
    'generation_config.json',
    'config.json',
)
# What from_pretrained takes for reading a repository; here it is read already.
_OF_REPOSITORIES = ('trust_remote_code', 'revision', 'token', 'cache_dir', 'local_files_only', 'force_download')


def legacy_tokenizer(folder: Path, variant: str | None = None, **arguments: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `folder`, from the cache if it was made before.

    Args:
        folder: A local folder in an old layout.
        variant: Which one, where config.json does not tell.
        arguments: What AutoTokenizer.from_pretrained takes, such as eos_token.

    Raises:
        ModelError: Its file is missing or damaged, or cannot be converted exactly.
    """
    values = read_config(folder)
    variant = variant_of(folder, values, variant)
    source = tokenizer_file(folder, variant)
    if not source.is_file():
        found = ', '.join(sorted(p.name for p in folder.iterdir())[:8])
        raise ModelError(f'{folder} has no {source.name}, the tokenizer of {variant}; it holds {found}')
    cached = cache_root() / 'tokenizers' / _key(folder, source, variant, is_chat(folder, variant))
    if not (cached / 'tokenizer.json').is_file():
        cache_folder('tokenizers')
        made = build_tokenizer(folder, source, variant)
        made.chat_template = chat_template(folder, variant)
        _keep(made, cached)
    with quiet():
        wanted = {key: value for key, value in arguments.items() if key not in _OF_REPOSITORIES}
        return AutoTokenizer.from_pretrained(cached, trust_remote_code=False, **wanted)


def tokenizer_file(folder: Path, variant: str) -> Path:
    """Return where the vocabulary of a variant lies, whether it is there or not."""
    return folder / ('qwen.tiktoken' if variant == 'qwen' else 'tokenizer.model')


def stop_ids(folder: Path, variant: str) -> list[int]:
    """Return the eos and, of a chat model, what else ends a reply; nothing if `folder` has no tokenizer."""
    if not tokenizer_file(folder, variant).is_file():
        return []
    tokenizer = legacy_tokenizer(folder, variant)
    vocab, ends = tokenizer.get_vocab(), CHAT[variant][1] if is_chat(folder, variant) else ()
    return [tokenizer.eos_token_id, *(vocab[token] for token in ends if token in vocab)]


def _key(folder: Path, source: Path, *more: Any) -> str:
    """Return a hash of everything that decides the tokenizer."""
    digest = hashlib.sha256(repr((_VERSION, more)).encode())
    for path in (source, *(folder / name for name in _READ)):
        content = path.read_bytes() if path.is_file() else b''
        digest.update(f'{path.name} {len(content)}\n'.encode() + content)
    for path in sorted(FOLDER.glob('*.jinja')):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _keep(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write `tokenizer` to `folder`; another process may be doing the same, and whoever is first stays."""
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix='.making-'))
    try:
        tokenizer.save_pretrained(aside)
        os.replace(aside, folder)
    except OSError:
        if not (folder / 'tokenizer.json').is_file():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
