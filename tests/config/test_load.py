"""Wrong configs are refused with everything that is wrong; options reach what they name."""

import pytest
from golden import short

from xtune.config.flatten import flatten
from xtune.config.load import load, parse_options
from xtune.config.presets import find
from xtune.config.wire import wire
from xtune.errors import ConfigError

LORA = find('smollm2_135m_lora_selfcog_e2')
FULL = find('smollm2_135m_full_selfcog_e2')


def refusal(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return str(caught.value)


def test_every_error_is_reported_at_once(tmp_path, golden):
    path = tmp_path / 'wrong.py'
    text = flatten(LORA, {'seed': 1}).replace('batch_size=1', 'batchsize=1').replace('keep=2', "keep='two'")
    text = text.replace("    name='one_device',\n", '')
    path.write_text(text.replace('\npack = True', '\npakc = True') + '\nlora = dict(r=8)\n')
    message = refusal(path, {'max_length': 0, 'overlong': 'cut'})
    assert message.startswith(f'{path} has 7 problems:\n')
    golden('config.seven_problems', message)


@pytest.mark.parametrize(
    ('option', 'meant'),
    [
        ('max_lenght', 'max_length'),  # codespell:ignore
        ('schedul.max_epochs', 'schedule'),
        ('schedule.max_epoch', 'max_epochs'),
        ('train_dataset.map_fun', 'map_fn'),
        ('log.tensor_board', 'tensorboard'),
    ],
)
def test_a_misspelt_option_is_refused_with_the_close_name(option, meant):
    assert f'`{meant}`' in refusal(LORA, {option: 1})


def test_a_misspelt_preset_is_refused_with_close_names(tmp_path):
    for name, hint in [
        ('smollm2_135m_lora_selfcog', '`smollm2_135m_lora_selfcog_e2`'),
        ('smollm2_135m_lora_selfcog_e2.py', 'without .py'),
        ('nothing_like_it', 'xtune list-cfg'),
        (str(tmp_path), 'folder'),
    ]:
        with pytest.raises(ConfigError, match=hint):
            find(name)


VALUES = [
    ('max_length', '512'),
    ('max_length', True),
    ('max_length', 0),
    ('max_length', -5),
    ('pack', 1),
    ('base_model', None),
    ('schedule', [1, 2]),
    ('schedule.warmup_ratio', 1.5),
    ('schedule.max_grad_norm', 0),
    ('schedule.max_steps', 'all'),
    ('chat_samples.prompts', 'Hi'),
    ('val_dataset', 1.5),
    ('custom_imports', 'mine'),
]


def test_wrong_types_and_limits_are_refused(golden):
    messages = {f'{name}={value!r}': refusal(LORA, {name: value}) for name, value in VALUES}
    assert all(' one problem:\n' in message for message in messages.values())
    golden('config.values', {case: message.partition('\n')[2] for case, message in messages.items()})


@pytest.mark.parametrize('value', [0.1, 1, 20, 20.0, None, {'path': 'val.json'}])
def test_val_dataset_takes_a_share_a_count_or_a_source(value):
    assert load(LORA, {'val_dataset': value}).val_dataset == value


@pytest.mark.parametrize(
    'option', ['max_length.x', 'chat_samples.prompts.9', 'chat_samples.prompts.0.x', 'log.plot.x.y']
)
def test_an_option_below_something_that_has_no_such_place_is_refused(option):
    assert f'--cfg-options {option}' in refusal(FULL, {option: 8})


def test_a_key_of_a_section_that_is_none_is_refused_without_its_type():
    assert '`lora` has no `type`' in refusal(FULL, {'lora.r': 8})
    assert load(FULL, {'lora.r': 8, 'lora.type': 'peft.LoraConfig'}).lora.r == 8


def test_an_option_replaces_one_item_of_a_list():
    assert load(FULL, {'chat_samples.prompts.0': 'Hi'}).chat_samples.prompts == ['Hi']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'seed = 1\nlora = dict(\n', r'line 2: .*never closed'),
        (b'seed = 1\0\n', r'null bytes'),
        (b'template = "\xff\xfe"\n', 'not UTF-8'),
        (b'seed = undefined\n', "name 'undefined'"),
        (b'seed = 1 / 0\n', 'division by zero'),
        (b'from mmengine.config import read_base\nwith read_base():\n    from .gone import x\n', 'gone'),
        (b'def helper():\n    pass\n', '`helper`'),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / 'broken.py'
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value) and 'None' not in str(caught.value)


def test_a_folder_or_a_missing_file_is_refused(tmp_path):
    assert str(tmp_path) in refusal(tmp_path) and 'gone.py' in refusal(tmp_path / 'gone.py')


@pytest.mark.parametrize(
    ('text', 'value'),
    [('8', 8), ('-3', -3), ('1e-4', 1e-4), ('true', True), ('False', False), ('None', None), ('null', None)]
    + [('', ''), ('"8"', '8'), ('a/b.json', 'a/b.json'), ('x=y', 'x=y'), ('[q_proj,v_proj]', ['q_proj', 'v_proj'])]
    + [('(a,1)', ('a', 1)), ("['a',2]", ['a', 2]), ('[]', []), ('{"a": 1}', {'a': 1}), ('C:\\new', 'C:\\new')],
)
def test_option_text_becomes_a_value(text, value):
    parsed = parse_options([f'lora.r={text}'])['lora.r']
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize('pair', ['lora.r', '=8', ''])
def test_an_option_without_name_or_value_is_refused(pair):
    with pytest.raises(ConfigError, match='name=value'):
        parse_options([pair])


TYPES = [
    {'lora.rr': 8},
    {'optimizer.learning_rate': 1},
    {'lora.rr': 8, 'optimizer.learning_rate': 1},
    {'optimizer.type': 'torch.optim.AdamX'},
    {'optimizer.type': 'nosuch.Thing'},
    {'optimizer.type': 'AdamW'},
    {'optimizer.type': 'PagedAdamW8bit'},
    {'optimizer.type': 'torch.optim.SGD'},
    {'optimizer.type': 'AdamX'},
    {'lora.type': 'LoraConfig'},
    {'optimizer.type': '.AdamW'},
    {'optimizer.type': 3},
]


def test_keys_and_types_are_checked_against_what_they_name(golden):
    messages = {short(options): refusal(LORA, options, check_types=True) for options in TYPES}
    golden('config.types', {case: message.partition('\n')[2] for case, message in messages.items()})


def test_options_reach_everything_that_depends_on_them():
    pairs = ['max_length=64', 'base_model=/m', 'schedule.max_epochs=7', 'seed=9', 'train_dataset.path=my.jsonl']
    job = wire(load(LORA, parse_options([*pairs, 'lora.r=4', 'optimizer.lr=0.5', 'llm.torch_dtype=auto'])), 'mine')
    assert (job.values.max_length, job.values.seed, job.values.base_model) == (64, 9, '/m')
    assert job.load_llm.args == job.load_tokenizer.args == ('/m',)
    assert job.schedule.max_epochs == 7 and job.train_sources[0].path == 'my.jsonl'
    assert job.lora.keywords['r'] == 4 and job.optimizer.keywords['lr'] == 0.5
    assert job.load_llm.keywords['torch_dtype'] == 'auto' and job.work_dir.as_posix() == 'work_dirs/mine'


def test_a_word_that_the_key_takes_stays_text():
    given = parse_options(
        ['activation_checkpointing=none', 'strategy.deepspeed=none', 'lora=none', 'quantization.a=none', 'pack=fit']
    )
    assert given == {
        'activation_checkpointing': 'none',
        'strategy.deepspeed': None,
        'lora': None,
        'quantization.a': None,
        'pack': 'fit',
    }
