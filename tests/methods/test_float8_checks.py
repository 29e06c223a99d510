"""A float8 base that cannot be trained on is refused, with the reason, before data are prepared."""

import pytest
import torch

from xtune.config.load import load
from xtune.config.run_config import RunConfig
from xtune.config.wire import wire
from xtune.engine.train import train
from xtune.errors import ConfigError, ModelError, XtuneError
from xtune.methods.float8_checks import check_float8, device_problem, float8_config, gpu_problem
from xtune.parallel.env import World


def job(make_config, **options):
    return wire(load(make_config('fp8_lora', **options)))


INCOMPATIBLE = [
    {'lora': None},
    {'precision': 'fp32'},
    {'lora.use_dora': True},
    *({'lora.init_lora_weights': start} for start in ('pissa', 'pissa_niter_4', 'olora', 'corda', 'eva')),
    {'lora': {'type': 'peft.BOFTConfig'}},
    {'quantization.skip': 'gate'},
    {'quantization.skip': [1]},
    {'quantization.last': -1},
    {'quantization.last': True},
]


def test_incompatible_options_are_refused(make_config, golden):
    messages = {}
    for options in INCOMPATIBLE:
        with pytest.raises(ConfigError) as caught:
            check_float8(job(make_config, **options).model, torch.device('cpu'))
        messages[str(options)] = caught.value
    golden('config.float8', messages)


def test_an_initialization_from_quantized_weights_is_refused(make_config):
    options = {'lora.init_lora_weights': 'loftq', 'lora.loftq_config': {'loftq_bits': 4}}
    with pytest.raises(ConfigError, match="init_lora_weights='loftq'"):
        check_float8(job(make_config, **options).model, torch.device('cpu'))


def test_train_refuses_a_cpu_before_it_looks_for_the_model(make_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ModelError, match=r'CUDA GPU.*\(cpu\)'):
        train(RunConfig.read(make_config('fp8_lora', base_model='/no/such/model'), {}))


@pytest.mark.parametrize('strategy', ['zero2', 'fsdp2'])
def test_a_sharding_strategy_is_refused_first(strategy, make_config):
    with pytest.raises(ConfigError, match=f'fp8_lora .*strategy {strategy}: .*ddp'):
        train(
            RunConfig.read(make_config('fp8_lora', base_model='/no/such/model'), {'strategy.name': strategy}),
            world=World(0, 2),
        )


def test_supported_gpus():
    assert gpu_problem('NVIDIA H100', (9, 0), None) is gpu_problem('NVIDIA L4', (8, 9), None) is None
    assert gpu_problem('NVIDIA B200', (10, 0), None) is None
    problem = gpu_problem('NVIDIA A100', (8, 0), None)
    assert all(word in problem for word in ('8.9', 'NVIDIA A100', '8.0'))
    assert 'ROCm 7.0 (AMD MI300X)' in gpu_problem('AMD MI300X', (9, 4), '7.0')
    assert 'none (cpu)' in device_problem(torch.device('cpu'))


def test_other_bases_are_accepted(make_config):
    for method in ('lora', 'qlora', 'full'):
        other = wire(load(make_config(method)))
        check_float8(other.model, torch.device('cpu'))
        assert float8_config(other.quantization) is None
    assert float8_config(job(make_config).quantization).skip == ['router', 'gate']


def test_an_unknown_option_is_refused(make_config):
    with pytest.raises(XtuneError, match='`quantization.skips` .*`skip`'):
        load(make_config('fp8_lora'), {'quantization.skips': []}, check_types=True)
