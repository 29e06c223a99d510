"""Invalid and ineffective options are reported before data are read: the data file of these runs does not exist."""

import re

import pytest

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine import ineffective_options
from xtune.errors import ConfigError


@pytest.mark.parametrize(
    ('method', 'options', 'fix'),
    [
        ('lora', {'lora.modules_to_save': ['lm_haed']}, '`lm_head`'),
        ('lora', {'lora.target_modules': ['q_proj'], 'lora.rank_pattern': {'v_proj': 4}}, 'v_proj'),
        ('lora', {'lora.target_modules': ['input_layernorm']}, 'LlamaRMSNorm'),
        ('lora', {'lora.init_lora_weights': 'pissa', 'lora.target_modules': ['q_prj']}, '`q_proj`'),
        ('lora', {'lora.lora_dropout': 2}, '`lora.lora_dropout`'),
        ('lora', {'optimizer.lr': -1.0}, '`optimizer.lr`'),
        ('qlora', {'quantization.bnb_4bit_quant_type': 'nf5'}, "'nf4' or 'fp4', got 'nf5'"),
        ('qlora', {'quantization.llm_int8_skip_modules': ['lm_haed']}, '`lm_head`'),
        ('lora', {'llm.torch_dtype': 'auto'}, 'set precision'),
        ('full', {'llm.device_map': 'auto'}, 'set strategy'),
        ('full', {'llm.attn_implementaton': 'eager'}, '`attn_implementation`'),
        ('full', {'tokenizer.padding_sde': 'left'}, '`padding_side`'),
        ('full', {'validation.every_steps': 2}, 'val_dataset'),
    ],
)
def test_invalid_options_are_refused_before_data_are_read(method, options, fix, make_config, xtune):
    config = make_config(method, **{'train_dataset.path': '/no/such/file.json', **options})
    code, _, err = xtune('train', config)
    assert code == 2 and fix in err and '/no/such' not in err and 'Traceback' not in err, err


@pytest.mark.parametrize(
    ('options', 'messages'),
    [
        (
            {'train_dataset.map_fn': 'sharegptt', 'chat_template': 'chatm'},
            ['`sharegpt`', '`chatml`'],
        ),
        ({'train_dataset.map_fn': 5}, ['map_fn=5 ']),
        ({'train_dataset.map_fn': 'os.sep'}, ["map_fn='os.sep' "]),
        ({'train_dataset.chat_template': '/no/such.jinja'}, ['/no/such.jinja']),
    ],
)
def test_names_are_resolved_before_the_model_is_downloaded(options, messages, make_config, xtune):
    config = make_config(**{'base_model': 'no/model', 'train_dataset.path': '/no/such/file.json', **options})
    code, _, err = xtune('train', config)
    assert code == 2 and all(word in err for word in messages) and 'no/model' not in err and 'file.json' not in err, err


@pytest.mark.parametrize('command', ['train', 'plan', 'check-custom-dataset'])
def test_all_errors_of_a_config_are_in_one_list(command, make_config, xtune, golden):
    options = ['optimizer.lr=abc', 'optimizer.betas=[2,3]', 'lora.r=0', 'lora.rr=8', 'schedule.batch_sise=1', 'seed=-1']
    code, _, err = xtune(command, make_config(**{'train_dataset.path': '/no/such'}), '--cfg-options', *options)
    assert code == 2 and '/no/such' not in err, err
    golden('config.six_problems', err)
    assert all(option.partition('=')[0] in err for option in options), err


def test_all_errors_of_a_wired_run_are_in_one_list(make_config, xtune):
    options = {'validation.every_steps': 2, 'runner.log_levell': 'INFO'}
    code, _, err = xtune('train', make_config(**options))
    assert code == 2 and all(word in err for word in ('val_dataset', 'log_levell')), err


def test_a_plan_refuses_values_out_of_range(make_config, xtune):
    code, _, err = xtune('plan', make_config(**{'lora.r': 0}))
    assert code == 2 and '`lora.r`' in err and 'got 0' in err and 'Traceback' not in err


@pytest.fixture
def job(make_config):
    """Return a function that wires a run with options."""
    return lambda method='lora', **options: wire(load(make_config(method, **options)))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'validation.every_steps': 2}, 'set val_dataset'),
        ({'schedule.lr_schedule': 'constant', 'schedule.min_lr_ratio': 0.1}, "'constant'"),
        ({'strategy.deepspeed': {'zero_optimization': {'stage': 2}}}, "strategy.name='one_device'"),
    ],
)
def test_contradicting_options_are_refused(options, message, job):
    with pytest.raises(ConfigError, match=message):
        ineffective_options.check(job(**options))


def test_single_data_set_of_weight_one_is_accepted(job):
    one = job(**{'train_dataset.weight': 1})
    ineffective_options.check(one)
    assert not [note for note in ineffective_options.notes(one, 1) if 'weight' in note]


@pytest.mark.parametrize(
    ('method', 'options', 'names'),
    [
        ('lora', {'data.window': 100}, 'data.window=100 .*data.streaming=True'),
        ('lora', {'data.streaming': True, 'data.num_proc': 2}, 'data.num_proc=2 .*data.streaming'),
        ('lora', {'data.streaming': True, 'data.num_proc': None}, 'schedule.max_epochs=2'),
        ('lora', {'checkpoint.background': True}, 'checkpoint.background=True'),
        ('full', {'checkpoint.export_adapter': False}, 'checkpoint.export_adapter=False .*lora'),
        ('lora', {'train_dataset.weight': 2.0}, 'train_dataset.weight=2.0'),
        ('lora', {'strategy.timeout': 60.0}, 'strategy.timeout=60.0'),
    ],
)
def test_other_options_without_effect_are_noted(method, options, names, job):
    one = job(method, **options)
    ineffective_options.check(one)
    assert any(re.search(names, note) for note in ineffective_options.notes(one, 1))


def test_intervals_that_are_never_reached_are_noted(job):
    many = {'schedule.max_steps': 50, 'checkpoint.every_steps': 60, 'validation.every_steps': 70, 'val_dataset': 4}
    notes = list(ineffective_options.notes_on_steps(job(**many, **{'schedule.warmup_ratio': 0.01}), 20, 10))
    assert [note.partition(' ')[0] for note in notes] == [
        'schedule.max_steps=50',
        'schedule.warmup_ratio=0.01',
        'checkpoint.every_steps=60',
        'validation.every_steps=70',
    ]


def test_defaults_and_effective_options_are_not_noted(job):
    plain = job(**{'checkpoint.every_steps': 500})
    ineffective_options.check(plain)
    assert not [*ineffective_options.notes(plain, 1), *ineffective_options.notes_on_steps(plain, 3, 3)]
    used = {'val_dataset': 4, 'validation.every_steps': 2, 'schedule.max_steps': 20, 'schedule.min_lr_ratio': 0.1}
    used |= {'chat_samples.every_steps': 2, 'strategy.timeout': 60.0, 'schedule.warmup_ratio': 0.1}
    busy = job('full', **used, **{'checkpoint.background': True})
    ineffective_options.check(busy)
    assert not [*ineffective_options.notes(busy, 2), *ineffective_options.notes_on_steps(busy, 20, 12)]


def test_notes_are_printed(make_config, xtune):
    code, out, err = xtune('train', make_config(**{'data.window': 50, 'schedule.max_steps': 1, 'log.plot': False}))
    assert code == 0 and 'note: data.window=50 ' in out, out + err
