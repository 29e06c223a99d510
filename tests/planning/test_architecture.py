"""Every preset is planned without a connection: the sizes of its model are shipped, and a folder overrides them."""

import json
import re

import pytest

from xtune.config.compose import part_files
from xtune.config.flatten import flatten
from xtune.config.load import load
from xtune.config.preset_names import parse
from xtune.config.presets import find, presets
from xtune.config.wire import wire
from xtune.errors import ModelError
from xtune.planning.architecture import SHIPPED, find_architecture
from xtune.planning.estimator import MemoryEstimator
from xtune.planning.memory_plan import needed_bytes
from xtune.planning.published_configs import entries, shipped_config, with_likes
from xtune.planning.units import format_gib
from xtune.utils.quiet import quiet

PARTS = part_files('models')


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """Make the hub unreachable, and its cache empty."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))


def architecture_of(name, **options):
    job = wire(load(find(name), options), name)
    return find_architecture(job.values.base_model, job.load_llm)


def test_the_architecture_of_every_preset_is_shipped():
    base_models = {part: re.search(r"base_model = '(.*)'", PARTS[part].read_text('utf-8'))[1] for part in PARTS}
    with quiet():
        configs = {part: shipped_config(part, base_model) for part, base_model in base_models.items()}
    assert all(config.num_hidden_layers > 10 and config.vocab_size > 30_000 for config in configs.values())


def test_every_preset_has_a_model_whose_values_are_shipped():
    models = {parse(preset.composed).model for preset in presets().values()}
    assert len(models) > 80 and models <= set(entries()) == set(PARTS)


@pytest.mark.parametrize('name', ['llama3_70b_chat_qlora_oasst1_e3', 'chatglm3_6b_qlora_sql_e3', 'yi_34b_full_sql_e1'])
def test_a_preset_is_found_without_a_connection(name):
    found = architecture_of(name)
    assert found.source == SHIPPED and found.config.hidden_size in (8192, 4096, 7168)


def test_the_section_llm_changes_shipped_values_too():
    found = architecture_of('qwen3_8b_lora_alpaca_enzh_e3', **{'llm.max_position_embeddings': 77})
    assert (found.source, found.config.max_position_embeddings) == (SHIPPED, 77)


def test_a_folder_takes_precedence_over_shipped_values(tmp_path):
    folder = tmp_path / 'Llama-2-7b-hf'
    folder.mkdir()
    small = shipped_config('llama2_7b', 'x/y').to_dict() | dict(num_hidden_layers=3)
    (folder / 'config.json').write_text(json.dumps(small), encoding='utf-8')
    found = architecture_of('llama2_7b_qlora_oasst1_e3', base_model=str(folder))
    assert (found.source, found.config.num_hidden_layers) == (f'from {folder}', 3)


@pytest.mark.parametrize('options', [{'base_model': 'some/other-model'}, {'llm.revision': 'older'}])
def test_values_are_not_shipped_for_other_models_and_revisions(options):
    with pytest.raises(ModelError):
        architecture_of('llama2_7b_qlora_oasst1_e3', **options)


def test_an_entry_with_like_has_the_values_of_the_other_entry():
    raw = dict(a=dict(x=1, y=2), b=dict(like='a', y=3), c=dict(like='b', z=4))
    assert with_likes(raw) == dict(a=dict(x=1, y=2), b=dict(x=1, y=3), c=dict(x=1, y=3, z=4))


def test_list_cfg_shows_estimates_without_a_connection(xtune, tmp_path):
    config = tmp_path / 'mine.py'
    quick = {'max_length': 64, 'pack': False, 'lora.target_modules': ['q_proj']}
    config.write_text(flatten(find('smollm2_135m_lora_selfcog_e2'), quick), encoding='utf-8')
    estimator = MemoryEstimator(wire(load(config), 'mine').step)
    assert estimator.source == SHIPPED
    assert format_gib(needed_bytes(estimator.minimum())) in xtune('list-cfg', config)[1]


@pytest.mark.slow
@pytest.mark.parametrize('name', presets())
def test_every_preset_is_planned_without_a_connection(name, xtune):
    code, out, err = xtune('plan', name, '--memory', '80', '--json', '--gpus', '8')
    assert code == 0, err
    assert json.loads(out)['architecture'] == SHIPPED
