"""An option name of another framework is an error that names the option of xtune."""

import re
from dataclasses import fields

import pytest

from xtune.config.migration import DATASET_KEYS, SECTION_NAMES, XTUNER_NAMES
from xtune.config.presets import ROOT, find
from xtune.config.sections import SECTIONS, Source
from xtune.config.validate import problems
from xtune.errors import ConfigError


@pytest.mark.parametrize(
    ('name', 'here'),
    [
        ('visualizer', 'runner.visualizer'),
        ('default_hooks', 'checkpoint'),
        ('param_scheduler', 'schedule.lr_schedule'),
        ('accumulative_counts', 'schedule.gradient_accumulation_steps'),
        ('evaluation_inputs', 'chat_samples.prompts'),
        ('lr', 'optimizer.lr'),
        ('learning_rate', 'optimizer.lr'),
    ],
)
def test_the_error_names_the_option_to_use(name, here):
    from xtune.config.load import load

    with pytest.raises(ConfigError, match=f'`{name}`.* {re.escape(here)}'):
        load(find('smollm2_135m_lora_alpaca_e1'), {name: 1})


def test_keys_of_a_data_set_too():
    found = list(problems({'train_dataset': dict(path='x', dataset_map_fn='y', max_dataset_length=3, limiit=3)}))
    for name, here in (('dataset_map_fn', 'map_fn'), ('max_dataset_length', 'limit'), ('limiit', '`limit`')):
        assert any(f'.{name}`' in problem and here in problem.partition(name)[2] for problem in found)


def test_every_replacement_exists():
    assert not set(SECTION_NAMES) & set(SECTIONS)
    assert not set(DATASET_KEYS) & {f.name for f in fields(Source)}
    for text in (*SECTION_NAMES.values(), *DATASET_KEYS.values()):
        for section, key in re.findall(r'\b([a-z_]+)\.([a-z_]+)', text):
            table = SECTIONS[section].keys
            assert table is None or key in {f.name for f in fields(table)}, text


def test_the_page_about_configs_has_the_names_of_xtuner():
    page = (ROOT.parent / 'docs' / 'en' / 'config.md').read_text(encoding='utf-8')
    for name, option in {**XTUNER_NAMES, **DATASET_KEYS}.items():
        assert f'| `{name}` | {option} |' in page


def test_a_section_that_was_removed_is_named():
    [problem] = [one for one in problems({'evaluation': dict(metric='mmlu')}) if 'evaluation' in one]
    assert '`evaluation`' in problem
