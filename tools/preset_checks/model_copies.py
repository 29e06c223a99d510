"""Small random copies of the models of the presets, as model folders. They have the flags of the real models."""

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

from .small_configs import entries, small_values
from .toy_tokenizers import toy_tokenizer

# Tokenizers in the file formats of 2023, trained on a few sentences.
LEGACY_TOKENIZERS = ROOT.parent / 'tests' / 'models' / 'legacy' / 'files' / 'tokenizers'
LEGACY_VOCAB_SIZE = 768  # rows of the embeddings for these tokenizers
# Tokens of the Baichuan chat templates, which are missing in these small files.
BAICHUAN_TOKENS = [f'<reserved_{number}>' for number in (102, 103, 106, 107)]
_CONTROL = 3  # the type of a control token in a sentencepiece file
INIT_STD = 0.05  # of the random weights; with 0.02, the outputs of so small a model hardly depend on the input


def make_copy(part: str, base_model: str, folder: Path) -> Path:
    """Return the folder of the copy of model `part`, written on the first call.

    The folder is named like `base_model` on the hub, because the name identifies some remote-code checkpoints.
    """
    target = folder / part / base_model.rsplit('/', 1)[-1]
    if not target.is_dir():
        temporary = folder / part / '.unfinished' / target.name
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        torch.manual_seed(0)
        with quiet():
            (_write_legacy if 'original' in entries()[part] else _write_native)(part, temporary)
        temporary.rename(target)
    return target


def native_config(part: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the config of a copy, of the config class of the real model in transformers."""
    ids = {f'{role}_token_id': getattr(tokenizer, f'{role}_token_id') for role in ('bos', 'eos', 'pad')}
    vocab_size = -(-len(tokenizer) // 64) * 64
    values = small_values(part) | ids | dict(vocab_size=vocab_size, initializer_range=INIT_STD)
    return CONFIG_MAPPING[entries()[part]['type']](**values)


def _write_native(part: str, folder: Path) -> None:
    tokenizer = toy_tokenizer(entries()[part]['tokenizer'])
    config = native_config(part, tokenizer)
    llm = AutoModelForCausalLM.from_config(config).to(config.dtype)
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_legacy(part: str, folder: Path) -> None:
    """Write a copy as a remote-code checkpoint: original keys of config.json, tensor names and tokenizer files."""
    entry = entries()[part]
    for file in (LEGACY_TOKENIZERS / entry['tokenizer']).iterdir():
        if file.name != 'cases.json':
            shutil.copy(file, folder)
    if entry['original'] == 'baichuan':
        with (folder / 'tokenizer.model').open('ab') as file:
            file.write(b''.join(map(_sentencepiece_entry, BAICHUAN_TOKENS)))
    vocab_key = 'padded_vocab_size' if entry['original'] == 'chatglm' else 'vocab_size'
    values = small_values(part) | {
        'model_type': entry['original'],
        vocab_key: LEGACY_VOCAB_SIZE,
        'initializer_range': INIT_STD,
    }
    _write_json(folder / 'config.json', values)
    if entry['original'] == 'qwen' and part.endswith('_chat'):
        _write_json(folder / 'generation_config.json', dict(chat_format='chatml'))
    legacy = open_legacy(folder, _variant(part))
    legacy.config.initializer_range = INIT_STD
    state = AutoModelForCausalLM.from_config(legacy.config).to(getattr(torch, values['torch_dtype'])).state_dict()
    original_names = fused_names(legacy.table, list(state))
    tensors = {original: torch.cat([state[name] for name in names]) for original, names in original_names.items()}
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})


def _sentencepiece_entry(text: str) -> bytes:
    """Return a control token as a protocol buffer entry, which can be appended to a tokenizer.model."""
    raw = text.encode()
    body = bytes([1 << 3 | 2, len(raw)]) + raw + bytes([3 << 3, _CONTROL])
    return bytes([1 << 3 | 2, len(body)]) + body


def _variant(part: str) -> str | None:
    """Return the variant of a checkpoint that only the folder name identifies."""
    return part[:8] if part.startswith('chatglm') else None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + '\n', encoding='utf-8')
