"""A flat copy has the values and comments of the config, every option of the schema and its description."""

import ast
import re
from dataclasses import fields

import pytest

from xtune.config.flatten import flatten, with_defaults
from xtune.config.lazy import comparable, to_plain
from xtune.config.load import load
from xtune.config.presets import find
from xtune.config.sections import SCALARS, SECTIONS
from xtune.config.wire import wire
from xtune.errors import ConfigError

PART = r'''"""A part with odd values."""
from peft import LoraConfig
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'some/model'

llm = dict(type=AutoModelForCausalLM.from_pretrained, rope_scaling=None)

tokenizer = dict(type=AutoTokenizer.from_pretrained)

# Two lines
# about the template.
chat_template = 'a "b" \'c\' {{ messages }} {% if x %}\n请\\n'

quantization = None

lora = dict(
    type=LoraConfig,
    # which layers get another rank
    rank_pattern={'a.b': 1, 'c': -2.5},
    corda_config=dict(
        deep=dict(
            x=1,  # stays
            y=(1,),
        ),
        empty=dict(),
    ),
)

train_dataset = dict(path='rows.json', map_args=dict(keep=[dict(n=1), dict(n=2)], flag=True))

optimizer = dict(type=AdamW, lr=1e-4, betas=(0.9, 0.999))

schedule = dict(
    max_epochs=1,
    batch_size=4,  # sequences
)

strategy = dict(name='one_device')

chat_samples = dict(every_steps=9, prompts=['请', ''])
'''
PRESET = '''"""A preset with overrides of all sorts."""
from mmengine.config import read_base

with read_base():
    from ._base_.part import *

lora.corda_config.deep.x = 7
lora.corda_config.deep.z = [dict(q=None)]
lora.rank_pattern = {'e.f': 3}
train_dataset.map_args.keep = train_dataset.map_args.keep[:1]
del llm['rope_scaling']
optimizer = dict(type='torch.optim.SGD', lr=float('1'))
'''


@pytest.fixture
def preset(tmp_path):
    (tmp_path / '_base_').mkdir()
    (tmp_path / '_base_' / 'part.py').write_text(PART, encoding='utf-8')
    path = tmp_path / 'odd.py'
    path.write_text(PRESET, encoding='utf-8')
    return path


@pytest.fixture
def copy(tmp_path):
    """A flat copy of a preset."""
    path = tmp_path / 'copy.py'
    path.write_text(flatten(find('smollm2_135m_lora_selfcog_e2')), encoding='utf-8')
    return path


def reload(text, folder):
    path = folder / 'again.py'
    path.write_text(text, encoding='utf-8')
    return load(path)


def test_nested_overrides_and_odd_values_survive(preset, tmp_path):
    cfg = reload(flatten(preset), tmp_path)
    assert comparable(to_plain(cfg)) == comparable(with_defaults(to_plain(load(preset))))
    assert cfg.chat_template == 'a "b" \'c\' {{ messages }} {% if x %}\n请\\n'
    assert cfg.lora.corda_config == dict(deep=dict(x=7, y=(1,), z=[dict(q=None)]), empty={})
    assert cfg.lora.rank_pattern == {'e.f': 3} and cfg.train_dataset.map_args.keep == [dict(n=1)]
    assert 'rope_scaling' not in cfg.llm and to_plain(cfg)['optimizer'] == dict(type='torch.optim.SGD', lr=1.0)


def test_tuples_stay_tuples(preset, tmp_path):
    preset.write_text(PRESET.rsplit('\n', 2)[0] + '\n', encoding='utf-8')  # without the other optimizer
    cfg = reload(flatten(preset), tmp_path)
    assert cfg.optimizer.betas == (0.9, 0.999) and cfg.lora.corda_config.deep.y == (1,)


def test_comments_stay_beside_what_is_overridden(preset):
    text = flatten(preset, {'schedule.batch_size': 2, 'lora.r': 4})
    assert '# Two lines\n# about the template.\nchat_template = ' in text
    assert "    # which layers get another rank\n    rank_pattern={\n        'e.f': 3,\n    }," in text
    assert 'x=7,  # stays\n' in text and 'batch_size=2,  # sequences\n' in text and '    r=4,\n)' in text


def test_options_are_written_into_the_copy(tmp_path):
    options = {'lora.r': 4, 'max_length': 64, 'lora.rank_pattern': {'a.b': 2}, 'seed': 7, 'work_dir': 'w'}
    text = flatten(find('smollm2_135m_lora_selfcog_e2'), options)
    cfg = reload(text, tmp_path)
    assert (cfg.lora.r, cfg.max_length, cfg.lora.rank_pattern, cfg.seed, cfg.work_dir) == (4, 64, {'a.b': 2}, 7, 'w')
    assert '# the update is scaled by lora_alpha / r' in text and '# Tokens per' in text


def test_a_copy_of_a_copy_keeps_comments_and_one_signature(copy):
    once = copy.read_text(encoding='utf-8')
    twice = flatten(copy, {'schedule.batch_size': 3, 'max_length': 64})
    changed = once.replace('batch_size=1,', 'batch_size=3,').replace('max_length = 256', 'max_length = 64')
    assert twice.split('"""')[2] == changed.split('"""')[2]
    assert twice.count('Written by') == 1 and 'copy-cfg copy`' in twice and 'batch_size=3' in twice


def test_a_comment_at_the_end_of_a_line_is_kept(copy):
    text = copy.read_text(encoding='utf-8')
    copy.write_text(re.sub('256  # .*', '256  # short rows', text), encoding='utf-8')
    assert 'max_length = 256  # short rows\n' in flatten(copy)
    assert 'max_length = 64  # short rows\n' in flatten(copy, {'max_length': 64})


@pytest.mark.parametrize('end', ['weight_decay=0.0\n)', 'weight_decay=0.0  # none\n)', 'weight_decay=0.0)'])
def test_a_key_is_added_behind_a_line_without_comma(copy, tmp_path, end):
    text = copy.read_text(encoding='utf-8').replace('weight_decay=0.0,\n)', end)
    copy.write_text(text, encoding='utf-8')
    assert reload(flatten(copy, {'optimizer.eps': 1e-6}), tmp_path).optimizer.eps == 1e-6


@pytest.mark.parametrize('key', ['from', 'a.b', 'two words'])
def test_a_key_that_is_no_python_name_is_added(copy, tmp_path, key):
    # beside the keys that are there, and alone
    for wanted in ({'name': 'Xiaotu', 'author': 'the xtune team', key: 'x'}, {key: 'x'}):
        cfg = reload(flatten(copy, {'train_dataset.map_args': wanted}), tmp_path)
        assert cfg.train_dataset.map_args == wanted


def test_infinity_survives(copy, tmp_path):
    assert reload(flatten(copy, {'schedule.max_grad_norm': float('inf')}), tmp_path).schedule.max_grad_norm > 1e300


def test_a_value_that_is_no_data_is_an_error_for_the_user(copy):
    with pytest.raises(ConfigError, match='target_modules|set'):
        flatten(copy, {'lora.target_modules': {'q_proj'}})


def test_a_whole_module_import_is_refused_with_what_to_write(copy):
    text = copy.read_text(encoding='utf-8').replace('from torch.optim import AdamW', 'import torch')
    copy.write_text(text.replace('type=AdamW', 'type=torch.optim.AdamW'), encoding='utf-8')
    with pytest.raises(ConfigError, match='write `from torch'):
        flatten(copy)


@pytest.mark.parametrize('name', ['smollm2_135m_lora_selfcog_e2', 'qwen_7b_qlora_moss_sft_all_e1'])
def test_a_copy_has_every_option_with_its_description_under_a_heading(name):
    text = flatten(find(name))
    comments = ' '.join(' '.join(line.partition('#')[2].split()) for line in text.splitlines() if '#' in line)
    tree = {node.targets[0].id: node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)}
    assert list(tree) == list(SECTIONS)
    for section, declared in SECTIONS.items():
        doc = SCALARS[section].metadata['doc'] if section in SCALARS else declared.doc
        assert ' '.join(doc.split()) in comments, section
        for option in fields(declared.keys) if declared.keys and section != 'val_dataset' else ():
            first = tree[section].elts[0] if isinstance(tree[section], ast.List) else tree[section]
            assert option.name in {keyword.arg for keyword in first.keywords}
            assert option.metadata['doc'] in comments or option.name == 'map_args', option.name
    headings = [line for line in text.splitlines() if line.startswith('# ----')]
    assert headings == [f'# ---- {group} ----' for group in ('model', 'data', 'optimizer', 'schedule', 'runtime')]
    assert all(len(line) <= 100 for line in text.splitlines() if line.strip().startswith('#'))


def test_a_short_config_of_ones_own_gets_every_option(tmp_path):
    config = tmp_path / 'short.py'
    start = flatten(find('smollm2_135m_lora_selfcog_e2')).split('# ---- data ----')[0]
    data = "train_dataset = dict(\n    # my rows\n    path='rows.json',\n)\nval_dataset = 0.1\n"
    rest = 'from torch.optim import SGD\noptimizer = dict(type=SGD, lr=0.1)\n'
    rest += "schedule = dict(max_epochs=2)  # two\nstrategy = dict(name='ddp')\n"
    config.write_text(start + data + rest, encoding='utf-8')
    text = flatten(config)
    cfg = reload(text, tmp_path)
    assert comparable(to_plain(cfg)) == comparable(with_defaults(to_plain(load(config))))
    assert (cfg.val_dataset, cfg.schedule.batch_size, cfg.speed.compile, cfg.work_dir) == (0.1, 1, True, None)
    assert "    # my rows\n    path='rows.json',\n" in text and ')  # two\n' in text
    job, expected = wire(cfg), wire(load(config))
    assert (job.schedule, job.train_sources, job.speed) == (expected.schedule, expected.train_sources, expected.speed)
