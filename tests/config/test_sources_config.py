"""Training and validation data as lists of data sets: read, changed by options, refused, and written into one file."""

import re

import pytest

from xtune.config.flatten import flatten, with_defaults
from xtune.config.lazy import comparable, to_plain
from xtune.config.load import load, parse_options
from xtune.config.presets import find
from xtune.config.sections import Scalars
from xtune.config.wire import wire
from xtune.data.map_fns.alpaca import alpaca_map_fn
from xtune.errors import ConfigError

PRESET = 'smollm2_135m_lora_selfcog_e2'
SETS = """train_dataset = [
    # The larger one
    dict(path='a.json', map_fn=alpaca_map_fn, weight=3),  # three of four
    dict(
        path='b.jsonl',
        map_fn='maps_of_lists.pair_up',
        map_args=dict(names=['q', 'r']),
        limit=10,  # rows
        weight=1,
    ),
    dict(path='c.csv', map_fn=pair_up, weight=0.5),
]
"""
IMPORTS = 'from xtune.data.map_fns.alpaca import alpaca_map_fn\nfrom maps_of_lists import pair_up\n'
MODULE = """def pair_up(row, names=('q', 'r')):
    return [{'role': 'user', 'content': row[names[0]]}, {'role': 'assistant', 'content': row[names[1]]}]
"""


@pytest.fixture
def listed(tmp_path):
    """A copy of a preset whose training data are three sets; one map function lies beside it."""
    (tmp_path / 'maps_of_lists.py').write_text(MODULE)
    text = flatten(find(PRESET))
    text, count = re.subn(r'train_dataset = dict\(.*?\n\)\n', lambda _: SETS, text, flags=re.S)
    assert count == 1
    path = tmp_path / 'listed.py'
    path.write_text(text.replace('\nfrom peft', f'\n{IMPORTS}from peft', 1), encoding='utf-8')
    return path


def refusal(path, *pairs):
    with pytest.raises(ConfigError) as caught:
        load(path, parse_options(pairs))
    return str(caught.value)


def sources(path, *pairs):
    job = wire(load(path, parse_options(pairs)))
    return job.train_sources, job.val_sources


def test_functions_of_a_list_are_the_imported_objects(listed):
    (one, two, three), val = sources(listed)
    assert (
        one.map_fn is alpaca_map_fn
        and two.map_fn == 'maps_of_lists.pair_up'
        and three.map_fn.__module__ == 'maps_of_lists'
    )
    assert (one.weight, two.weight, three.weight, two.limit, val) == (3, 1, 0.5, 10, None)
    assert two.map_args == {'names': ['q', 'r']} and one.split == 'train'


def test_options_reach_one_set_of_a_list(listed):
    pairs = ['train_dataset.0.limit=5', 'train_dataset.1.map_args.names.0=question', 'train_dataset.2.map_fn=default']
    (one, two, three), _ = sources(listed, *pairs)
    assert (one.limit, one.map_fn, two.map_args['names'], two.limit) == (5, alpaca_map_fn, ['question', 'r'], 10)
    assert three.map_fn == 'default'


def test_an_option_replaces_a_dict_by_a_list_and_back(listed):
    pairs = ["train_dataset=[{'path':'x.json','map_fn':'alpaca'},{'path':'y.json'}]", 'train_dataset.1.limit=3']
    for path in (listed, find(PRESET)):
        (one, two), _ = sources(path, *pairs)
        assert (one.path, one.map_fn, two.path, two.map_fn, two.limit) == ('x.json', 'alpaca', 'y.json', 'auto', 3)
    [only], _ = sources(listed, "train_dataset={'path':'x.json'}")
    assert (only.path, only.weight) == ('x.json', None)


def test_validation_data_may_be_a_list(listed):
    assert [one.path for one in sources(listed, "val_dataset=[{'path':'v.json'},{'path':'w.csv'}]")[1]] == [
        'v.json',
        'w.csv',
    ]
    assert sources(listed, 'val_dataset=0.25')[1] == 0.25


PAIRS = [
    'train_dataset=[]',
    'val_dataset=[]',
    'train_dataset=[1]',
    'train_dataset=[dict(path=a.json)]',
    'train_dataset.1=b.jsonl',
    'train_dataset=rows.json',
    'train_dataset.1.limt=3',  # codespell:ignore
    'train_dataset.1.limit=0',
    "train_dataset=[{'map_fn':'alpaca'}]",
    'train_dataset.1.weight=None',
    'train_dataset.2.weight=0',
    'train_dataset.2.weight=-1',
    'train_dataset.2.weight=1e999',
    'train_dataset.2.weight=much',
    "val_dataset=[{'path':'v','weight':1}]",
    "val_dataset={'path':'v','weight':1}",
    "val_dataset={'path':'v','wieght':1}",
    'train_dataset.path=x.json',
    'train_dataset.3.limit=1',
    'data.window=0',
    'data.longest_first=1',
    'pack=best',
]


def test_what_is_wrong_in_a_list_is_named_with_its_place(listed, golden):
    messages = {pair: refusal(listed, pair) for pair in PAIRS}
    assert not any(' problems:' in message for message in messages.values())
    golden('config.data_sets', {pair: message.partition('\n')[2] or message for pair, message in messages.items()})


def test_a_weight_that_is_not_a_number_is_refused(listed):
    with pytest.raises(ConfigError, match='`train_dataset.0.weight`.* nan'):
        load(listed, {'train_dataset.0.weight': float('nan')})


def test_sets_without_weights_are_as_good(listed):
    text = re.sub(r'weight=[\d.]+', 'weight=None', listed.read_text(encoding='utf-8'))
    listed.write_text(text, encoding='utf-8')
    assert [one.weight for one in sources(listed)[0]] == [None] * 3


@pytest.mark.parametrize('pairs', [[], ['train_dataset.0.limit=5'], ["train_dataset.1.map_args={'from':'x'}"]], ids=len)
def test_a_list_with_functions_survives_the_way_into_one_file(listed, tmp_path, pairs):
    again = tmp_path / 'again.py'
    again.write_text(flatten(listed, parse_options(pairs)), encoding='utf-8')
    expected = with_defaults(to_plain(load(listed, parse_options(pairs))))
    assert comparable(to_plain(load(again))) == comparable(expected)
    assert sources(again) == sources(listed, *pairs)
    assert flatten(again).split('"""')[2] == again.read_text(encoding='utf-8').split('"""')[2]


def test_comments_in_a_list_stay_beside_what_is_changed(listed):
    text = flatten(listed, {'train_dataset.1.limit': 3, 'train_dataset.2.path': 'd.csv'})
    assert '    # The larger one\n' in text and '  # three of four\n' in text and 'limit=3,  # rows\n' in text
    assert "path='d.csv'" in text


def test_copy_cfg_writes_a_list(listed, xtune, tmp_path):
    code, _, err = xtune('copy-cfg', listed, tmp_path / 'copies', '--cfg-options', 'train_dataset.2.limit=7')
    assert code == 0, err
    [copy] = (tmp_path / 'copies').glob('*.py')
    assert sources(copy) == sources(listed, 'train_dataset.2.limit=7')


def test_a_file_based_on_a_preset_replaces_its_dict_by_a_list(listed, tmp_path):
    """What `read_base` brings in is a dict; the assignment after it is a list."""
    (tmp_path / '_base_').mkdir()
    (tmp_path / '_base_' / 'preset.py').write_text(flatten(find(PRESET)), encoding='utf-8')
    path = tmp_path / 'mine.py'
    head = (
        'from mmengine.config import read_base\n'
        + IMPORTS
        + '\nwith read_base():\n    from ._base_.preset import *\n\n'
    )
    path.write_text(f'"""Three sets."""\n{head}{SETS}', encoding='utf-8')
    assert sources(path) == sources(listed)
    flat = tmp_path / 'flat.py'
    flat.write_text(flatten(path), encoding='utf-8')
    assert sources(flat) == sources(listed)


@pytest.mark.parametrize(
    ('pack', 'mode'),
    [('True', 'fit'), ('False', 'none'), ('fit', 'fit'), ('exact', 'exact'), ('stream', 'stream')],
)
def test_pack_and_longest_first_through_options(pack, mode):
    job = wire(load(find(PRESET), parse_options([f'pack={pack}', 'data.longest_first=true'])))
    assert isinstance(job.values, Scalars) and job.values.packing == mode and job.data.longest_first is True
