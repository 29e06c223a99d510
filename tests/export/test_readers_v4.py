"""transformers 4, to which vLLM, SGLang and others are pinned, generates the same tokens from exports as version 5.

The first run builds a venv with transformers 4.57 below the cache folder (about 1.5 GB); later runs use it again.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3MoeConfig,
)

from xtune.hf_format.transformers4_tokenizer import write_tokenizer
from xtune.models.legacy.tokenizers import legacy_tokenizer

pytestmark = pytest.mark.slow
READER = Path(__file__).with_name('v4_reader.py')
PLACE = Path(os.environ.get('XTUNE_CACHE') or Path.home() / '.cache' / 'xtune') / 'transformers-4.57'
PACKAGES = ('transformers==4.57.*', f'torch=={torch.__version__.split("+")[0]}', 'sentencepiece', 'protobuf')
SMALL = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    pad_token_id=2,
    bos_token_id=1,
    eos_token_id=2,
)
EXPERTS = dict(num_local_experts=4, num_experts_per_tok=2)
MODELS = {
    'llama': (
        LlamaConfig,
        dict(
            rope_parameters=dict(
                rope_type='llama3',
                rope_theta=500000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            )
        ),
    ),
    'qwen2': (
        Qwen2Config,
        dict(rope_parameters=dict(rope_type='yarn', rope_theta=1e6, factor=4.0, original_max_position_embeddings=128)),
    ),
    'gemma3': (
        Gemma3TextConfig,
        dict(
            head_dim=16,
            sliding_window=16,
            layer_types=['sliding_attention', 'full_attention', 'sliding_attention'],
            rope_parameters=dict(
                full_attention=dict(rope_type='linear', factor=8.0, rope_theta=1e6),
                sliding_attention=dict(rope_type='default', rope_theta=5000.0),
            ),
        ),
    ),
    'phi3': (
        Phi3Config,
        dict(
            original_max_position_embeddings=64,
            rope_parameters=dict(
                rope_type='longrope',
                rope_theta=30000.0,
                short_factor=[1.0 + 0.1 * i for i in range(8)],
                long_factor=[1.5 + 0.2 * i for i in range(8)],
            ),
        ),
    ),
    'mixtral': (MixtralConfig, dict(EXPERTS, rope_parameters=dict(rope_type='default', rope_theta=1e6))),
    'qwen3_moe': (
        Qwen3MoeConfig,
        dict(
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            head_dim=16,
            rope_parameters=dict(rope_type='default', rope_theta=1e6),
        ),
    ),
}


@pytest.fixture(scope='module')
def v4():
    """Return a function that reads folders with transformers 4."""
    python = PLACE / 'bin' / 'python'
    ready = PLACE / 'ready'
    if not ready.is_file():
        venv.create(PLACE, with_pip=True, clear=True)
        made = subprocess.run([python, '-m', 'pip', 'install', '-q', *PACKAGES], capture_output=True, text=True)
        if made.returncode:
            shutil.rmtree(PLACE, ignore_errors=True)
            pytest.skip(f'no package index with {PACKAGES[0]} is reachable: {made.stderr.strip()[-300:]}')
        ready.touch()

    def run(*folders):
        environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        done = subprocess.run([python, READER, *folders], capture_output=True, text=True, env=environment, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    return run


def compare(v4, *folders):
    spec = importlib.util.spec_from_file_location('v4_reader', READER)
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    found = v4(*folders)
    for folder in map(str, folders):
        ours, theirs = reader.read(folder), found[folder]
        assert 'error' not in theirs, theirs
        assert not theirs.get('wrong') and ours
        torch.testing.assert_close(
            torch.tensor(theirs.pop('logits', [])), torch.tensor(ours.pop('logits', [])), rtol=0, atol=1e-3
        )
        assert theirs == ours


def base_of(folder, name, tokenizer):
    """Write a random model with sharp answers and SmolLM2's tokenizer, as transformers 5 writes it."""
    cls, values = MODELS[name]
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(cls(**{**SMALL, 'vocab_size': len(tokenizer), **values}))
    for parameter in llm.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.2)
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize('name', MODELS)
def test_adapter_merged_and_full_exports(name, v4, make_config, xtune, tokenizer, tmp_path):
    base = base_of(tmp_path / 'base', name, tokenizer)
    options = {'base_model': str(base), 'schedule.max_epochs': 1, 'optimizer.lr': 1e-3, 'pack': False}
    for method in ('lora', 'full'):
        config = make_config(method, method, **options)
        code, _, err = xtune('train', config)
        assert code == 0, err
        checkpoint = config.with_suffix('') / 'epoch_1.pth'
        assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / f'{method}_hf')[0] == 0
    code, _, err = xtune('convert', 'merge', base, tmp_path / 'lora_hf', tmp_path / 'merged')
    assert code == 0, err
    assert not (tmp_path / 'lora_hf' / 'config.json').exists()
    compare(v4, tmp_path / 'lora_hf', tmp_path / 'merged', tmp_path / 'full_hf')


def test_smollm2(v4, make_config, xtune, model_dir, tmp_path):
    config = make_config('lora', base_model=str(model_dir), **{'schedule.max_steps': 1, 'schedule.max_epochs': 1})
    code, _, err = xtune('train', config)
    assert code == 0, err
    adapter = next(config.with_suffix('').glob('*_hf'))
    assert xtune('convert', 'merge', model_dir, adapter, tmp_path / 'merged', '--dtype', 'float32')[0] == 0
    compare(v4, adapter, tmp_path / 'merged')


KINDS = dict(internlm_7b='internlm', qwen_7b='qwen', chatglm3_6b='chatglm3', baichuan2_7b='baichuan2')


@pytest.mark.parametrize('name', KINDS)
def test_2023_remote_code_checkpoints(name, v4, xtune, tmp_path):
    files = Path(__file__).parents[1] / 'models' / 'legacy' / 'files'
    shutil.copytree(files / 'tokenizers' / KINDS[name], tmp_path / 'source')
    for file in ('config.json', 'model.safetensors'):  # with fewer rows than the tokenizer has tokens: apart
        shutil.copy(files / name / file, tmp_path / 'source')
    (tmp_path / 'tokenizer').mkdir()
    write_tokenizer(tmp_path / 'tokenizer', legacy_tokenizer(tmp_path / 'source'))
    for path in (tmp_path / 'source').iterdir():
        if path.name not in ('config.json', 'model.safetensors'):
            path.unlink()
    code, _, err = xtune('convert', 'legacy', tmp_path / 'source', tmp_path / 'made')
    assert code == 0, err
    compare(v4, tmp_path / 'made', tmp_path / 'tokenizer')
