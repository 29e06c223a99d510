"""Option names of the previous version: read everywhere, named in a note, refused beside the new name."""

import pytest

from xtune.config.checkpoint_config import stored_sections
from xtune.config.deprecated import RENAMED, current_name, note
from xtune.config.flatten import flatten, with_defaults
from xtune.config.lazy import comparable, to_plain
from xtune.config.load import load, parse_options
from xtune.config.presets import find
from xtune.config.wire import wire
from xtune.errors import ConfigError
from xtune.export.stored_config import differences, model_of_checkpoint

PRESET = 'smollm2_135m_lora_selfcog_e2'
OLD = {
    'checkpointing': 'all',
    'template': 'zephyr',
    'schedule.accumulate': 3,
    'speed.masters': False,
    'speed.fused_loss': False,
    'speed.varlen': False,
    'train_dataset.template': 'llama3',
}
NEW = {current_name(name): value for name, value in OLD.items()}


@pytest.fixture(autouse=True)
def notes_not_printed_yet():
    note.cache_clear()


def old_text():
    """Return a flat config as the previous version wrote it."""
    text = flatten(find(PRESET), NEW)
    for old, new in RENAMED.items():
        text = text.replace(new.rpartition('.')[2], old.rpartition('.')[2])
    assert not any(new.rpartition('.')[2] in text for new in RENAMED.values())
    return text


def same(one, other):
    return comparable(with_defaults(to_plain(one))) == comparable(with_defaults(to_plain(other)))


def test_a_file_with_old_names_is_the_same_config(tmp_path, capsys):
    config = tmp_path / 'old.py'
    config.write_text(old_text(), encoding='utf-8')
    assert same(load(config), load(find(PRESET), NEW))
    err = capsys.readouterr().err
    for old in OLD:
        assert f'{config}: `{old}` is now `{current_name(old)}`' in err
    load(config)
    assert not capsys.readouterr().err  # once a process


def test_old_names_on_the_command_line(capsys):
    pairs = [f'{name}={value}' for name, value in OLD.items()]
    assert same(load(find(PRESET), parse_options(pairs)), load(find(PRESET), NEW))
    assert '`schedule.accumulate` is now `schedule.gradient_accumulation_steps`' in capsys.readouterr().err
    assert parse_options(['checkpointing=none']) == {'activation_checkpointing': 'none'}  # a word, not None
    assert load(find(PRESET), {'schedule': {'accumulate': 5}}).schedule.gradient_accumulation_steps == 5
    sources = [{'path': 'a.json'}, {'path': 'b.json', 'template': 'vicuna'}]
    cfg = load(find(PRESET), {'train_dataset': sources, 'train_dataset.0.template': 'chatml'})
    assert [source['chat_template'] for source in cfg.train_dataset] == ['chatml', 'vicuna']


@pytest.mark.parametrize(
    'changes',
    ["checkpointing = 'all'\nschedule.accumulate = 3\n", "checkpointing = 'all'\nschedule.update(accumulate=3)\n"],
)
def test_an_old_name_changes_what_a_part_sets_by_the_new_one(changes, tmp_path):
    (tmp_path / '_base_').mkdir()
    (tmp_path / '_base_' / 'preset.py').write_text(flatten(find(PRESET)), encoding='utf-8')
    config = tmp_path / 'mine.py'
    head = 'from mmengine.config import read_base\n\nwith read_base():\n    from ._base_.preset import *\n\n'
    config.write_text(head + changes, encoding='utf-8')
    cfg = load(config)
    assert (cfg.activation_checkpointing, cfg.schedule.gradient_accumulation_steps) == ('all', 3)
    assert 'accumulate' not in cfg.schedule and 'checkpointing' not in to_plain(cfg)


def test_a_section_is_imported_from_a_part_by_its_old_name(tmp_path, capsys):
    (tmp_path / '_base_').mkdir()
    part, rest = "chat_template = 'zephyr'\n", flatten(find(PRESET)).replace('chat_template = ', '_unused = ')
    (tmp_path / '_base_' / 'model.py').write_text(part, encoding='utf-8')
    (tmp_path / '_base_' / 'rest.py').write_text(rest.replace("_unused = 'chatml'\n", ''), encoding='utf-8')
    config = tmp_path / 'mine.py'
    parts = '    from ._base_.model import template\n    from ._base_.rest import *\n'
    config.write_text(f'from mmengine.config import read_base\n\nwith read_base():\n{parts}', encoding='utf-8')
    assert load(config).chat_template == 'zephyr'
    assert '`template` is now `chat_template`' in capsys.readouterr().err


def test_both_names_are_refused(tmp_path):
    config = tmp_path / 'both.py'
    config.write_text(flatten(find(PRESET)) + "checkpointing = 'all'\n", encoding='utf-8')
    with pytest.raises(ConfigError, match='both `checkpointing` and `activation_checkpointing`'):
        load(config)
    both = ['speed.masters=True', 'speed.master_weights=False']
    with pytest.raises(ConfigError, match='both `speed.masters` and `speed.master_weights`'):
        parse_options(both)


def test_checkpoints_of_the_previous_version(tmp_path, capsys):
    meta = dict(config=old_text())
    spec, expected = model_of_checkpoint(meta, tmp_path / 'gone.py'), wire(load(find(PRESET), NEW)).model
    assert spec.activation_checkpointing == expected.activation_checkpointing != 'auto'
    assert (spec.base_model, spec.max_length) == (expected.base_model, expected.max_length)
    config = tmp_path / 'new.py'
    config.write_text(flatten(find(PRESET), NEW), encoding='utf-8')
    assert not differences(config, meta)
    names = ('chat_template', 'schedule')
    assert stored_sections(meta['config'], names) == stored_sections(config.read_text(encoding='utf-8'), names)
    assert not capsys.readouterr().err  # nothing to do about a checkpoint


def test_a_config_that_imports_a_class_from_its_old_module(tmp_path):
    text = flatten(find('smollm2_135m_fp8_lora_selfcog_e2'))
    for form in ('from xtune.models.float8 import Float8Config', "Float8Config = 'xtune.models.float8.Float8Config'"):
        config = tmp_path / 'old.py'
        old = text.replace('from xtune.ops.float8_linear import Float8Config', form)
        if form.startswith('Float8Config'):
            old = old.replace(form, '').replace('type=Float8Config', 'type=' + form.partition(' = ')[2])
        config.write_text(old, encoding='utf-8')
        assert wire(load(config)).quantization.func.__module__ == 'xtune.ops.float8_linear'
    from_text = 'from xtune.models.float8 import Float8Config\nquantization = dict(type=Float8Config)\n'
    stored = stored_sections(from_text, ('quantization',))
    assert stored['quantization'] == {'type': 'xtune.ops.float8_linear.Float8Config'}
