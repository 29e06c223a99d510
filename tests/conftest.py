"""Fixtures: the real SmolLM2 model and tokenizer, a tiny random model with that tokenizer, and configs to run."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

pytest_plugins = ['golden']  # the fixture for message texts

# Nothing in the suite may wait for a hub.
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
# Without it torch refuses to be deterministic on a GPU, which some tests of losses need. torch takes these sizes on
# Hopper anyway.
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get('XTUNE_CACHE') or Path.home() / '.cache' / 'xtune')
ROWS = [
    {'instruction': f'What is {a} plus {b}?', 'input': '', 'output': f'{a} plus {b} is {a + b}.' + ' Indeed.' * (a % 4)}
    for a in range(6)
    for b in range(4)
]


# Files with tests that take long. They begin first, in either half of what two workers share, so that none is left over
# for one of them at the end.
LONG = (
    ('test_end_to_end.py', 'test_resharding.py', 'test_ulysses.py', 'test_train.py'),
    ('test_faults.py', 'test_strategies.py', 'test_rank0_loading.py', 'test_convert.py'),
)


# A test that runs a command, or wires the config of a run, is an integration test; others are marked where they stand.
RUNS = {'xtune', 'make_config'}


def pytest_collection_modifyitems(items):
    """Mark integration tests, and put the tests of LONG first, one half of them in the middle."""
    for item in items:
        if RUNS & set(item.fixturenames):
            item.add_marker(pytest.mark.integration)
    first, second = ([item for item in items if item.path.name in names] for names in LONG)
    others = [item for item in items if item.path.name not in (*LONG[0], *LONG[1])]
    middle = max(len(items) // 2 - len(first), 0)
    items[:] = first + others[:middle] + second + others[middle:]


@pytest.fixture(scope='session')
def model_dir():
    """SmolLM2-135M-Instruct, as tools/test.sh provides it."""
    folder = Path(os.environ.get('XTUNE_TEST_MODEL') or CACHE / 'models' / 'SmolLM2-135M-Instruct')
    if not folder.is_dir():
        spec = importlib.util.spec_from_file_location('get_smollm2', ROOT / 'tools' / 'get_smollm2.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(folder)
    return folder


@pytest.fixture(scope='session')
def tokenizer(model_dir):
    """SmolLM2's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory, tokenizer):
    """A folder with a random two-layer Llama of 1.6 M parameters and SmolLM2's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp('models') / 'tiny'
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep tokenized data of tests out of the user's cache."""
    monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def alpaca_file(tmp_path):
    """24 short Alpaca rows."""
    path = tmp_path / 'alpaca.json'
    path.write_text(json.dumps(ROWS), encoding='utf-8')
    return path


@pytest.fixture
def make_config(tmp_path, tiny_model, alpaca_file):
    """Return a function that writes a small run's config: method, then dotted options."""
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    def make(method='lora', name='run', **options):
        small = {
            'base_model': str(tiny_model),
            'train_dataset.path': str(alpaca_file),
            'work_dir': str(tmp_path / name),
            'max_length': 128,
            'schedule.batch_size': 2,
            'schedule.gradient_accumulation_steps': 2,
            'schedule.max_epochs': 2,
            'log.every_steps': 1,
            'log.plot': False,  # takes as long as a run of these
            'chat_samples.every_steps': None,
            'chat_samples.prompts': ['Who are you?'],
            'checkpoint.every_steps': 2,
            'data.num_proc': 1,
        }
        preset = {'full': 'smollm2_135m_full_selfcog_e2'}.get(method, f'smollm2_135m_{method}_alpaca_e1')
        if method == 'full':
            small |= {'train_dataset.map_fn': 'alpaca', 'train_dataset.map_args': None}
        path = tmp_path / f'{name}.py'
        path.write_text(flatten(find(preset), {**small, **options}), encoding='utf-8')
        return path

    return make


@pytest.fixture
def xtune(capsys):
    """Return a function that runs a command in this process and returns (exit code, stdout, stderr)."""
    from xtune.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return run
