"""Tiny 2023 remote-code checkpoints, unchanged or changed by a test."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

FILES = Path(__file__).parent / 'files'
TOKENIZERS = dict(internlm_7b='internlm', qwen_7b='qwen', chatglm3_6b='chatglm3')
EMBEDDINGS = ('embed_tokens', 'lm_head', 'wte', 'word_embeddings', 'output_layer')


@pytest.fixture(scope='session')
def reference():
    """Return a function that reads the outputs of the published code for a checkpoint."""
    return lambda name: load_file(FILES / name / 'reference.safetensors')


def rewrite(folder, change_config=None, change_weights=None):
    """Let functions change config.json and the tensors of `folder`; return it."""
    path = folder / 'config.json'
    values = json.loads(path.read_text())
    if change_config:
        change_config(values)
        path.write_text(json.dumps(values))
    if change_weights:
        state = load_file(folder / 'model.safetensors')
        state = change_weights(state) or state
        save_file(
            {k: v.contiguous() for k, v in state.items()}, folder / 'model.safetensors', metadata={'format': 'pt'}
        )
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that copies a checkpoint, under another folder name if wanted."""

    def copy(name, folder=None, **changes):
        target = tmp_path / (folder or name)
        target.mkdir(parents=True)
        for file in ('config.json', 'model.safetensors'):
            shutil.copy(FILES / name / file, target)
        return rewrite(target, **changes)

    return copy


@pytest.fixture
def with_tokenizer(checkpoint):
    """Return a function that copies a checkpoint, with its tokenizer and rows for each of the tokens."""

    def make(name, folder=None, **changes):
        target = checkpoint(name, folder)
        kind = TOKENIZERS.get(name, 'baichuan2')
        for file in (FILES / 'tokenizers' / kind).iterdir():
            shutil.copy(file, target)

        def more_rows(values):
            for key in ('vocab_size', 'padded_vocab_size'):
                if key in values:
                    values[key] = 768

        def pad(state):
            torch.manual_seed(0)
            for key, tensor in state.items():
                if key.split('.')[-2] in EMBEDDINGS:
                    extra = torch.randn(768 - len(tensor), tensor.shape[1]) * tensor.std()
                    state[key] = torch.cat([tensor, extra])

        rewrite(target, more_rows, pad)
        return rewrite(target, **changes)

    return make
