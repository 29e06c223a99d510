"""PiSSA in several processes: all take the same start out of the base, and a run goes on under another strategy."""

import pytest
import torch
from safetensors.torch import load_file

from xtune.config.strategies import deepspeed_strategy

pytestmark = pytest.mark.slow
NAMES = ('ddp', 'zero2', 'zero3', 'fsdp2')


def strategy(name):
    return deepspeed_strategy(name) if name.startswith('zero') else {'name': name, 'deepspeed': None}


def test_two_ranks_start_and_resume_like_one(tmp_path, byte_model, write_config, in_processes, figures):
    shared = {
        'base_model': str(byte_model),
        'optimizer.lr': 2e-3,
        'schedule.max_steps': 4,
        'checkpoint.every_steps': 2,
        'checkpoint.every_epochs': None,
        'checkpoint.keep': 9,
        'lora.lora_dropout': 0.0,
        'lora.r': 4,
        'lora.init_lora_weights': 'pissa_niter_4',
    }

    def case(label, name, size, resume=False):
        options = shared | {'strategy': strategy(name), 'schedule.gradient_accumulation_steps': 4 // size}
        config = str(write_config(tmp_path, label, 'lora', **options))
        return dict(name=label, config=config, size=size, resume=resume and str(tmp_path / resume / 'iter_2.pth'))

    cases = [case('one', 'one_device', 1), *(case(name, name, 2) for name in NAMES)]
    cases += [case('one_fsdp2', 'fsdp2', 2, 'one'), case('zero3_ddp', 'ddp', 2, 'zero3')]
    cases += [case('ddp_ddp', 'ddp', 2, 'ddp')]
    in_processes(cases, tmp_path)
    one = figures(tmp_path / 'one')
    adapter = load_file(tmp_path / 'one' / 'iter_4_hf' / 'adapter_model.safetensors')
    assert {tensor.shape[0] for name, tensor in adapter.items() if 'lora_A' in name} == {8}
    for name in [case['name'] for case in cases[1:]]:
        own = figures(tmp_path / name)
        assert own == pytest.approx({key: one[key] for key in own}, rel=1e-4), name
        for key, tensor in load_file(tmp_path / name / 'iter_4_hf' / 'adapter_model.safetensors').items():
            torch.testing.assert_close(tensor, adapter[key], rtol=0, atol=1e-4, msg=f'{name} {key}')
    again, whole = figures(tmp_path / 'ddp_ddp'), figures(tmp_path / 'ddp')
    assert again and again == {key: whole[key] for key in again}
