"""A float8 base is refused where it cannot be trained on, with the reason, before data are prepared."""

import pytest
import torch

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine.train import train
from xtune.errors import ConfigError, ModelError, XtuneError
from xtune.methods.float8_checks import check, device_problem, float8_of, gpu_problem
from xtune.parallel.env import World


def job(make_config, **options):
    return wire(load(make_config('fp8_lora', **options)))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'lora': None}, 'cannot be trained itself: set lora, or quantization = None'),
        ({'precision': 'fp32'}, "precision='fp32'.*set precision='auto'"),
        ({'lora.use_dora': True}, 'lora.use_dora=True.*in every step'),
        *(
            ({'lora.init_lora_weights': start}, f"init_lora_weights='{start}'.*True, False, 'gaussian'")
            for start in ('pissa', 'pissa_niter_4', 'olora', 'corda', 'eva')
        ),
        ({'lora.type': 'peft.BOFTConfig'}, 'lora.type=BOFTConfig.*only LoraConfig'),
        ({'quantization.skip': 'gate'}, "skip is a list of parts of names, got 'gate'"),
        ({'quantization.skip': [1]}, r'skip is a list of parts of names, got \[1\]'),
        ({'quantization.last': -1}, 'last is a number of layers, 0 or more, got -1'),
        ({'quantization.last': True}, 'last is a number of layers, 0 or more, got True'),
    ],
)
def test_what_does_not_go_with_it(options, message, make_config):
    if options.get('lora.type'):
        options = {'lora': {'type': options['lora.type']}}
    with pytest.raises(ConfigError, match=message):
        check(job(make_config, **options), torch.device('cpu'))


def test_a_start_that_reads_quantised_weights_is_refused(make_config):
    options = {'lora.init_lora_weights': 'loftq', 'lora.loftq_config': {'loftq_bits': 4}}
    with pytest.raises(ConfigError, match="init_lora_weights='loftq'"):
        check(job(make_config, **options), torch.device('cpu'))


def test_the_command_refuses_a_cpu_before_it_looks_for_the_model(make_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ModelError, match=r'needs a CUDA GPU, and this machine has none \(cpu\); take a lora or qlora'):
        train(make_config('fp8_lora', base_model='/no/such/model'), {})


@pytest.mark.parametrize('strategy', ['zero2', 'fsdp2'])
def test_a_strategy_that_slices_is_refused_first(strategy, make_config):
    with pytest.raises(ConfigError, match=f'fp8_lora does not go with strategy {strategy}: .*take ddp'):
        train(make_config('fp8_lora', base_model='/no/such/model'), {'strategy.name': strategy}, world=World(0, 2))


def test_gpus():
    assert gpu_problem('NVIDIA H100', (9, 0), None) is gpu_problem('NVIDIA L4', (8, 9), None) is None
    assert gpu_problem('NVIDIA B200', (10, 0), None) is None
    old = gpu_problem('NVIDIA A100', (8, 0), None)
    assert old == 'a GPU of compute capability 8.9 (Ada, Hopper) or later, and NVIDIA A100 has 8.0'
    assert 'ROCm 7.0 (AMD MI300X)' in gpu_problem('AMD MI300X', (9, 4), '7.0')
    assert 'none (cpu)' in device_problem(torch.device('cpu'))


def test_other_bases_pass(make_config):
    for method in ('lora', 'qlora', 'full'):
        other = wire(load(make_config(method)))
        check(other, torch.device('cpu'))
        assert float8_of(other) is None
    assert float8_of(job(make_config)).skip == ['router', 'gate']


def test_an_option_that_it_has_not(make_config):
    with pytest.raises(
        XtuneError, match='`quantization.skips` is not an argument of Float8Config; did you mean `skip`'
    ):
        load(make_config('fp8_lora'), {'quantization.skips': []}, check_types=True)
