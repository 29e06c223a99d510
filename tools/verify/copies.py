"""Random copies of the models of the presets, small, with the flags of the real ones, as folders to train from."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase

from xtune.config.presets import ROOT
from xtune.models.legacy.families import open_legacy
from xtune.models.legacy.tensors import fused_names
from xtune.utils.quiet import quiet

from .table import entries, shrunken
from .toy_tokenizers import toy_tokenizer

# Tokenizers of 2023 in their own files, trained on a few sentences.
OLD_TOKENIZERS = ROOT.parent / 'tests' / 'models' / 'legacy' / 'files' / 'tokenizers'
OLD_ROWS = 768  # rows of their embeddings
# Pieces of Baichuan's vocabulary that these small files lack; its templates are made of them.
BAICHUAN_MARKS = [f'<reserved_{number}>' for number in (102, 103, 106, 107)]
_CONTROL = 3  # the kind of a piece in a sentencepiece file
SPREAD = 0.05  # of the random weights; with 0.02 a model this small answers nearly the same to everything


def make_copy(part: str, base_model: str, folder: Path) -> Path:
    """Return the folder of a model part's copy, made on the first call.

    Its last name is that of `base_model` on the hub, because some layouts are told apart by it.
    """
    target = folder / part / base_model.rsplit('/', 1)[-1]
    if not target.is_dir():
        aside = folder / part / '.making' / target.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        torch.manual_seed(0)
        with quiet():
            (_original if 'original' in entries()[part] else _native)(part, aside)
        aside.rename(target)
    return target


def native_config(part: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the config of a copy, of the class that transformers has for the real one."""
    ids = {f'{role}_token_id': getattr(tokenizer, f'{role}_token_id') for role in ('bos', 'eos', 'pad')}
    rows = -(-len(tokenizer) // 64) * 64
    values = shrunken(part) | ids | dict(vocab_size=rows, initializer_range=SPREAD)
    return CONFIG_MAPPING[entries()[part]['type']](**values)


def _native(part: str, folder: Path) -> None:
    tokenizer = toy_tokenizer(entries()[part]['tokenizer'])
    config = native_config(part, tokenizer)
    llm = AutoModelForCausalLM.from_config(config).to(config.dtype)
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _original(part: str, folder: Path) -> None:
    """Write the copy in the layout of its repository: old keys of config.json, old tensor names, old tokenizer file."""
    entry = entries()[part]
    for file in (OLD_TOKENIZERS / entry['tokenizer']).iterdir():
        if file.name != 'cases.json':
            shutil.copy(file, folder)
    if entry['original'] == 'baichuan':
        with (folder / 'tokenizer.model').open('ab') as file:
            file.write(b''.join(map(_piece, BAICHUAN_MARKS)))
    rows = 'padded_vocab_size' if entry['original'] == 'chatglm' else 'vocab_size'
    values = shrunken(part) | {'model_type': entry['original'], rows: OLD_ROWS, 'initializer_range': SPREAD}
    _write_json(folder / 'config.json', values)
    if entry['original'] == 'qwen' and part.endswith('_chat'):
        _write_json(folder / 'generation_config.json', dict(chat_format='chatml'))
    legacy = open_legacy(folder, _variant(part))
    legacy.config.initializer_range = SPREAD
    state = AutoModelForCausalLM.from_config(legacy.config).to(getattr(torch, values['torch_dtype'])).state_dict()
    old_names = fused_names(legacy.table, list(state))
    joined = {old: torch.cat([state[name] for name in names]) for old, names in old_names.items()}
    save_file(joined, folder / 'model.safetensors', metadata={'format': 'pt'})


def _piece(text: str) -> bytes:
    """Return a piece as the protocol buffer of a tokenizer.model holds it, which takes more of them at its end."""
    raw = text.encode()
    body = bytes([1 << 3 | 2, len(raw)]) + raw + bytes([3 << 3, _CONTROL])
    return bytes([1 << 3 | 2, len(body)]) + body


def _variant(part: str) -> str | None:
    """Return what only the final folder's name tells."""
    return part[:8] if part.startswith('chatglm') else None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + '\n', encoding='utf-8')
