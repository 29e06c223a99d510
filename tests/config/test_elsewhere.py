"""Names of other frameworks' configs are answered with the option that does the same here."""

import re
from dataclasses import fields

import pytest

from xtune.config.elsewhere import SECTIONS_ELSEWHERE, SOURCES_ELSEWHERE
from xtune.config.presets import find
from xtune.config.sections import SECTIONS, Source
from xtune.config.validate import problems
from xtune.errors import ConfigError


@pytest.mark.parametrize(
    ('name', 'here'),
    [
        ('visualizer', 'runner.visualizer'),
        ('default_hooks', 'checkpoint, log and validation'),
        ('param_scheduler', 'schedule.lr_schedule'),
        ('accumulative_counts', 'schedule.gradient_accumulation_steps'),
        ('evaluation_inputs', 'chat_samples.prompts'),
        ('lr', 'optimizer.lr'),
        ('learning_rate', 'optimizer.lr'),
    ],
)
def test_a_section_of_elsewhere_is_answered(name, here):
    from xtune.config.load import load

    with pytest.raises(ConfigError, match=f'`{name}` is no section; here it is {re.escape(here)}'):
        load(find('smollm2_135m_lora_alpaca_e1'), {name: 1})


def test_a_key_of_a_data_set_of_elsewhere_is_answered():
    found = list(problems({'train_dataset': dict(path='x', dataset_map_fn='y', max_dataset_length=3, limiit=3)}))
    for said in ('here it is map_fn', 'here it is limit', 'did you mean `limit`'):
        assert any(said in problem for problem in found)


def test_every_answer_names_options_that_exist():
    assert not set(SECTIONS_ELSEWHERE) & set(SECTIONS)
    assert not set(SOURCES_ELSEWHERE) & {f.name for f in fields(Source)}
    for text in (*SECTIONS_ELSEWHERE.values(), *SOURCES_ELSEWHERE.values()):
        for section, key in re.findall(r'\b([a-z_]+)\.([a-z_]+)', text):
            table = SECTIONS[section].keys
            assert table is None or key in {f.name for f in fields(table)}, text
