"""The same runs on a CUDA device: run with `-m gpu`."""

import json

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]
OFF = {'speed.varlen': False}
INT8 = {'type': 'transformers.BitsAndBytesConfig', 'load_in_8bit': True}


def losses(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    return [row['loss'] for row in rows if 'loss' in row]


@pytest.mark.parametrize(
    ('method', 'options'),
    [
        ('lora', {}),
        ('qlora', {}),
        ('full', {}),
        ('lora', {'quantization': INT8}),
        ('lora', {'precision': 'fp32', 'checkpointing': 'none'}),
        ('qlora', {'optimizer.type': 'bitsandbytes.optim.PagedAdamW32bit'}),
        ('lora', {'optimizer.type': 'bitsandbytes.optim.PagedAdamW8bit'}),
    ],
)
def test_runs_and_resumes(method, options, make_config, xtune, tmp_path):
    config = make_config(method, **{'chat_samples.every_steps': 3, **options})
    code, out, err = xtune('train', config)
    assert code == 0, err
    assert torch.cuda.get_device_name() in out
    assert ('bf16' in out) == (options.get('precision') != 'fp32')
    whole = losses(tmp_path / 'run')
    assert np.isfinite(whole).all()
    (tmp_path / 'run' / 'epoch_2.pth').unlink()
    code, out, err = xtune('train', config, '--resume')
    assert code == 0 and 'resuming from' in out, err
    np.testing.assert_allclose(losses(tmp_path / 'run'), whole, rtol=2e-3)


@pytest.mark.parametrize('method', ['lora', 'full'])
def test_compiled_packed_runs_attend_by_where_samples_begin(method, make_config, xtune, tmp_path):
    for name, speed in (('on', {'speed.compile': True}), ('cast', {'speed.masters': False}), ('off', OFF)):
        options = {} if method == 'full' else {'lora.lora_dropout': 0.0}
        options |= {'chat_samples.every_steps': 3, 'val_dataset': 4, 'optimizer.lr': 1e-4, **speed}
        code, out, err = xtune('train', make_config(method, name, **options))
        assert code == 0, err
        assert ('varlen attention' in out) == (name != 'off')
        assert ('compiled layers' in out) == (name == 'on')
    for name in ('on', 'cast'):
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / 'off'), rtol=5e-3)


def test_merged_model_answers_in_4_bits(make_config, xtune, tiny_model, tmp_path):
    config = make_config('qlora')
    xtune('train', config)
    assert xtune('convert', 'pth_to_hf', config, tmp_path / 'run' / 'epoch_2.pth', tmp_path / 'hf')[0] == 0
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'hf', tmp_path / 'merged', '--device', 'cuda')
    assert code == 0, err
    for bits in ((), ('--bits', '4'), ('--bits', '8')):
        code, _, err = xtune('chat', tmp_path / 'merged', *bits, '--prompt', 'Hi', '--max-new-tokens', '3')
        assert code == 0, err
