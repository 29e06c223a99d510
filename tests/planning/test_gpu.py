"""Plans against runs on a CUDA device: run with `-m gpu`."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]


@pytest.fixture(scope='module')
def full_rows(tmp_path_factory):
    path = tmp_path_factory.mktemp('rows') / 'tokens.jsonl'
    ids = [[100 + (i * 7 + row) % 40_000 for i in range(1024)] for row in range(60)]
    path.write_text('\n'.join(json.dumps(dict(tokens=row)) for row in ids), encoding='utf-8')
    return str(path)


@pytest.fixture(scope='module')
def model(tmp_path_factory, tokenizer):
    """A random Llama of 0.3 B parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=16)
    config = LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2)
    folder = tmp_path_factory.mktemp('models') / 'model'
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ('method', 'options'),
    [
        ('lora', {'activation_checkpointing': 'none'}),
        ('lora', {'activation_checkpointing': 'all'}),
        ('qlora', {}),
        ('full', {'activation_checkpointing': 'none', 'schedule.gradient_accumulation_steps': 1}),
    ],
)
def test_a_run_uses_the_planned_memory(method, options, model, full_rows, make_config, xtune, tmp_path):
    options = {'max_length': 1024, 'schedule.batch_size': 4, 'pack': False, 'schedule.max_steps': 4, **options}
    rows = {'train_dataset': dict(path=full_rows, map_fn='tokenized')}
    config = make_config(method, base_model=model, **rows, **options)
    # In a separate process: earlier runs in this one leave memory that would be freed while partial models run.
    command = [sys.executable, '-m', 'xtune', 'plan', str(config), '--json', '--memory', '8']
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and 'note:' not in done.stderr, done.stderr  # all compiles, nothing runs out of memory
    plan = json.loads(done.stdout)
    assert plan['measured'] and plan['fits_here'] and plan['tokens_per_second'] > 0
    code, _, err = xtune('train', config)
    assert code == 0, err
    lines = map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text('utf-8').splitlines())
    peak = max(line['memory_gib'] for line in lines if 'loss' in line)
    assert plan['memory']['peak'] / 2**30 == pytest.approx(peak, rel=0.05)
    # Layers are counted as not compiled: an upper bound if they keep their activations.
    most = 1.08 if plan['checkpointed_layers'] == plan['layers'] else 1.5
    assert 0.92 * peak < plan['memory']['counted_peak'] / 2**30 < most * peak


def test_a_run_that_cannot_fit_is_refused_before_its_weights_are_read(model, make_config, xtune, tmp_path):
    folder = tmp_path / 'huge'
    shutil.copytree(model, folder, copy_function=os.symlink, ignore=shutil.ignore_patterns('*.safetensors*'))
    config = json.loads((folder / 'config.json').read_text('utf-8'))
    config |= dict(hidden_size=16384, intermediate_size=65536, num_hidden_layers=40)
    (folder / 'config.json').unlink()
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf-8')
    write_hollow(folder)
    code, _, err = xtune('train', make_config('full', base_model=str(folder)))
    assert code == 2 and 'before any activation' in err and 'xtune plan' in err


def write_hollow(folder):
    """Write weights of the sizes that the config says, as a file of which only the header takes room on the disk."""
    with torch.device('meta'):
        tensors = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).state_dict()
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + 2 * tensor.numel()
        header[name], at = dict(dtype='BF16', shape=list(tensor.shape), data_offsets=[at, end]), end
    text = json.dumps(header).encode()
    with (folder / 'model.safetensors').open('wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        file.truncate(8 + len(text) + at)
