"""The DeepSpeed configuration follows from the sections of the run; contradictions are refused."""

import json
from types import SimpleNamespace

import pytest
import torch

from xtune.config.sections import Schedule, Strategy
from xtune.config.strategies import deepspeed_strategy
from xtune.engine.zero_config import zero_config
from xtune.errors import ConfigError

SCHEDULE = Schedule(batch_size=3, gradient_accumulation_steps=4, max_grad_norm=0.5)


def make_zero_config(name='zero2', deepspeed=None, schedule=SCHEDULE, devices=2, bf16=False):
    job = SimpleNamespace(schedule=schedule, strategy=Strategy(name, deepspeed), lora=None)
    return zero_config(
        job.strategy, job.schedule, job.lora is not None, devices, torch.bfloat16 if bf16 else torch.float32
    )


def test_adapter_stays_in_float32():
    job = SimpleNamespace(schedule=SCHEDULE, strategy=Strategy('zero2', None), lora=object)
    assert zero_config(job.strategy, job.schedule, job.lora is not None, 2, torch.bfloat16)['bf16']['enabled'] is False


@pytest.mark.parametrize('name', ['zero1', 'zero2', 'zero2_offload', 'zero3', 'zero3_offload'])
@pytest.mark.parametrize('bf16', [False, True])
def test_auto_is_filled_in(name, bf16):
    strategy = deepspeed_strategy(name)
    values = make_zero_config(name, strategy['deepspeed'], bf16=bf16)
    assert 'auto' not in json.dumps(values)
    assert values['train_micro_batch_size_per_gpu'] == 3 and values['gradient_accumulation_steps'] == 4
    assert values['train_batch_size'] == 24 and values['gradient_clipping'] == 0.5
    assert values['bf16']['enabled'] is bf16 and values['fp16']['enabled'] is False
    zero = values['zero_optimization']
    assert zero['stage'] == int(name[4])
    assert (zero.get('offload_optimizer', {}).get('device') == 'cpu') == name.endswith('offload')


def test_configuration_from_the_strategy_name_alone():
    for name in ('zero1', 'zero2', 'zero3'):
        values = make_zero_config(name)
        assert values['zero_optimization'] == {'stage': int(name[4])}
    assert make_zero_config('zero2_offload')['zero_optimization']['offload_optimizer'] == {'device': 'cpu'}
    zero = make_zero_config('zero3_offload')['zero_optimization']
    assert zero['offload_optimizer'] == zero['offload_param'] == {'device': 'cpu'}
    assert make_zero_config(schedule=Schedule(max_grad_norm=None))['gradient_clipping'] == 0.0


CONTRADICTIONS = [
    dict(optimizer={'type': 'Adam'}),
    dict(scheduler={'type': 'WarmupLR'}),
    dict(fp16={'enabled': True}),
    dict(bf16={'enabled': True}),
    dict(train_micro_batch_size_per_gpu=2),
    dict(gradient_accumulation_steps=1),
    dict(gradient_clipping=1.0),
    dict(train_batch_size=12),
    dict(zero_optimization={'stage': 3}),
    dict(zero_optimization={'stage': 2, 'offload_optimizer': {'device': 'cpu'}}),
]


def test_contradictions_are_refused(golden):
    messages = {}
    for values in CONTRADICTIONS:
        with pytest.raises(ConfigError) as caught:
            make_zero_config(deepspeed=values)
        messages[str(values)] = caught.value
    golden('config.deepspeed', messages)


def test_equal_values_are_accepted_and_the_dict_is_not_modified():
    deepspeed = dict(
        train_micro_batch_size_per_gpu=3, train_batch_size='auto', zero_optimization=dict(reduce_bucket_size=5)
    )
    before = json.dumps(deepspeed)
    assert make_zero_config(deepspeed=deepspeed)['zero_optimization'] == dict(reduce_bucket_size=5, stage=2)
    assert json.dumps(deepspeed) == before


def test_user_json_file(tmp_path):
    path = tmp_path / 'ds.json'
    path.write_text(json.dumps(dict(zero_optimization=dict(stage=3, offload_param=dict(device='cpu')))))
    strategy = deepspeed_strategy(str(path))
    assert strategy['name'] == 'zero3_offload'
    assert make_zero_config(**strategy)['zero_optimization'] == dict(stage=3, offload_param=dict(device='cpu'))
    path.write_text(json.dumps(dict(zero_optimization=dict(stage=2, offload_optimizer=dict(device='none')))))
    assert deepspeed_strategy(str(path))['name'] == 'zero2'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"zero_optimization": ', 'DeepSpeed JSON'),
        ('[1]', 'list'),
        ('{"zero_optimization": 2}', 'zero_optimization'),
        ('{}', 'zero_optimization.stage'),
        ('{"zero_optimization": {"stage": 0}}', 'zero_optimization.stage'),
        ('{"zero_optimization": {"stage": "2"}}', 'zero_optimization.stage'),
    ],
)
def test_broken_json_file(text, message, tmp_path):
    path = tmp_path / 'ds.json'
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        deepspeed_strategy(str(path))
    assert message in str(error.value) and str(path) in str(error.value)


def test_unknown_name():
    with pytest.raises(ConfigError, match='did you mean `zero2`'):
        deepspeed_strategy('zeor2')
    assert deepspeed_strategy('deepspeed_zero2') == deepspeed_strategy('zero2')
