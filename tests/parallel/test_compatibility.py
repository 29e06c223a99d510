"""Every method with every strategy: it works, or the error suggests a combination that works."""

import re
import sys

import pytest

from xtune.config.run_config import RunConfig
from xtune.engine.train import train
from xtune.errors import ConfigError
from xtune.ops.float8_linear import Float8Config
from xtune.parallel.compatibility import METHODS, REFUSED, STRATEGIES, check, method_of
from xtune.parallel.env import World


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('strategy', STRATEGIES)
def test_methods_and_strategies(method, strategy):
    if (method, strategy) not in REFUSED:
        check(method, strategy, 2)
        return
    with pytest.raises(ConfigError) as error:
        check(method, strategy, 2)
    text = str(error.value)
    assert method in text and strategy in text
    # The advice after 'use' names strategies that work, for this method or for qlora.
    advised = re.findall(
        r'\b(?:' + '|'.join(sorted(STRATEGIES, key=len, reverse=True)) + r')\b', text.split('; use ')[1]
    )
    assert advised
    for name in advised:
        with_qlora = f'qlora preset with {name}' in text
        check('qlora' if with_qlora else method, name, 2)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('strategy', STRATEGIES)
def test_on_one_device_only_offload_is_refused(method, strategy):
    if not strategy.endswith('_offload'):
        check(method, strategy, 1)
        return
    with pytest.raises(ConfigError, match='NPROC_PER_NODE=2'):
        check(method, strategy, 1)


def test_messages_about_methods_and_strategies(golden):
    messages = {}
    for method, strategy in REFUSED:
        with pytest.raises(ConfigError) as caught:
            check(method, strategy, 2)
        messages[f'{method} with {strategy}'] = caught.value
    golden('run.methods_and_strategies', messages)


def test_every_refusal_is_of_a_known_pair():
    assert {m for m, _ in REFUSED} <= set(METHODS) and {s for _, s in REFUSED} <= set(STRATEGIES)


def test_unknown_strategy_names_the_close_one():
    with pytest.raises(ConfigError, match='`zero2'):
        check('lora', 'zreo2', 2)


@pytest.mark.parametrize(
    ('lora', 'quantization', 'method'),
    [
        (False, None, 'full'),
        (True, None, 'lora'),
        (True, dict(load_in_4bit=True), 'qlora'),
        (True, dict(load_in_8bit=True), 'int8_lora'),
        (True, dict(nbits=4), 'other_quantized'),
        (True, dict(type=Float8Config, skip=[]), 'fp8_lora'),
    ],
)
def test_method_of_a_config(lora, quantization, method):
    assert method_of(lora, quantization) == method


def test_a_contradicting_json_is_refused_before_anything_slow(make_config):
    own = {'strategy.name': 'zero2', 'strategy.deepspeed': {'train_micro_batch_size_per_gpu': 77}}
    with pytest.raises(ConfigError, match='train_micro_batch_size_per_gpu=77.* schedule.batch_size'):
        train(RunConfig.read(make_config(base_model='/no/such/model'), own), world=World(0, 2))


def test_missing_deepspeed_is_refused_before_anything_slow(make_config, monkeypatch):
    monkeypatch.setitem(sys.modules, 'deepspeed', None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r'pip install "xtune\[deepspeed\]", or use --strategy fsdp2'):
        train(RunConfig.read(make_config(base_model='/no/such/model'), {'strategy.name': 'zero2'}), world=World(0, 2))
