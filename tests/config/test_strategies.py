"""Strategies: one name in the parts, the table, the section and the command line; what the options set and refuse."""

import ast
import json
from dataclasses import fields
from typing import get_args

import pytest
from mmengine.config import Config

from xtune.config.load import load
from xtune.config.presets import find, strategies
from xtune.config.sections import Strategy, StrategyName
from xtune.config.strategies import strategy_options, strategy_parts
from xtune.errors import ConfigError
from xtune.parallel.compatibility import STRATEGIES

PRESET = 'smollm2_135m_lora_selfcog_e2'
ZERO = {'zero_optimization': {'stage': 3, 'offload_param': {'device': 'cpu'}}}


def test_each_strategy_has_one_name_everywhere():
    parts = strategy_parts()
    folder = parts['ddp'].parent
    assert set(get_args(StrategyName)) == set(STRATEGIES) == set(parts)
    assert {path.stem for path in folder.glob('*.py')} - {'__init__'} == set(parts)
    assert {'deepspeed_' + name for name in parts if name.startswith('zero')} == set(strategies())


def test_every_part_sets_every_option_once_and_names_itself():
    options = [option.name for option in fields(Strategy)]
    for name, path in strategy_parts().items():
        section = next(node for node in ast.parse(path.read_text('utf-8')).body if isinstance(node, ast.Assign))
        assert [keyword.arg for keyword in section.value.keywords] == options, name
        values = load(find(PRESET), strategy_options(name, None, {})).strategy
        assert values.name == name and (values.deepspeed is not None) == name.startswith('zero'), name


@pytest.mark.parametrize('name', [name for name in strategy_parts() if name.startswith('zero')])
def test_both_options_mean_the_same_for_a_stage_of_deepspeed(name):
    meant = strategy_options(name, None, {})
    assert meant == strategy_options(None, name, {}) == strategy_options(None, 'deepspeed_' + name, {})


def test_what_a_config_says_beside_the_name_stays():
    config = load(find(PRESET), {**strategy_options('fsdp2', None, {}), 'strategy.timeout': 60})
    assert (config.strategy.name, config.strategy.deepspeed, config.strategy.timeout) == ('fsdp2', None, 60)


@pytest.mark.parametrize(
    ('values', 'name'),
    [
        (ZERO, 'zero3_offload'),
        ({'zero_optimization': {'stage': 1}}, 'zero1'),
        ({'zero_optimization': {'stage': 2, 'offload_optimizer': {'device': 'none'}}}, 'zero2'),
    ],
    ids=['offload', 'plain', 'offload_to_none'],
)
def test_a_deepspeed_json_names_its_strategy(tmp_path, values, name):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(values), encoding='utf-8')
    assert strategy_options(None, str(path), {}) == {'strategy.name': name, 'strategy.deepspeed': values}


@pytest.mark.parametrize(
    ('name', 'deepspeed', 'others', 'message'),
    [
        ('zero2', 'zero2', {}, '--deepspeed'),
        ('fsdp2', None, {'strategy.name': 'ddp'}, '--strategy fsdp2.*--cfg-options'),
        ('fsdp', None, {}, '`fsdp2`'),
        ('my.json', None, {}, 'to --deepspeed'),
        (None, 'fsdp2', {}, '--strategy'),
        (None, 'zero4', {}, '`zero3`'),
    ],
)
def test_what_cannot_be_meant_is_refused(name, deepspeed, others, message):
    with pytest.raises(ConfigError, match=message):
        strategy_options(name, deepspeed, others)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'mine.json'),
        ('[]', 'list'),
        ('{}', 'zero_optimization=None'),
        ('{"zero_optimization": {"stage": "auto"}}', "{'stage': 'auto'}"),
        ('{"zero_optimization": true}', 'zero_optimization=True'),
    ],
)
def test_a_json_without_a_stage_is_refused(tmp_path, text, message):
    path = tmp_path / 'mine.json'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(ConfigError, match=message):
        strategy_options(None, str(path), {})


def test_a_misspelt_name_in_a_config_is_refused_with_all_names():
    with pytest.raises(ConfigError, match="'fsdp2_offload', got 'fsdp'"):
        load(find(PRESET), {'strategy.name': 'fsdp'})


def test_list_cfg_shows_all_strategies_and_what_one_sets(xtune):
    code, out, _ = xtune('list-cfg')
    shown = '\n  '.join(strategy_parts())
    assert code == 0 and f'strategies (for --strategy)\n  {shown}\n' in out
    assert xtune('list-cfg', '-p', 'strategies')[1].split()[3:] == list(strategy_parts())
    assert "name='fsdp2'" in xtune('list-cfg', 'fsdp2')[1] and '"stage": 3' in xtune('list-cfg', 'zero3')[1]


def test_copy_cfg_writes_a_strategy_alone_or_into_a_config(xtune, tmp_path):
    assert xtune('copy-cfg', 'fsdp2', tmp_path)[0] == 0
    part, copy = strategy_parts()['fsdp2'], tmp_path / 'fsdp2_copy.py'
    assert Config.fromfile(copy).to_dict() == Config.fromfile(part).to_dict()
    assert '# Ulysses group size' in copy.read_text('utf-8')
    assert xtune('copy-cfg', 'zero2', tmp_path)[0] == 0
    json_file = tmp_path / 'zero2_copy.json'
    assert strategy_options(None, str(json_file), {}) == strategy_options('zero2', None, {})
    assert xtune('copy-cfg', PRESET, tmp_path, '--deepspeed', str(json_file))[0] == 0
    strategy = load(tmp_path / f'{PRESET}_copy.py').strategy
    assert strategy.name == 'zero2' and strategy.deepspeed.zero_optimization.stage == 2
    code, _, err = xtune('copy-cfg', 'fsdp2', tmp_path, '--strategy', 'ddp', '--force')
    assert code == 2 and '--strategy' in err and 'fsdp2' in err
