"""Every preset is planned without a connection: the sizes of its model are shipped, and a folder overrides them."""

import json
import re

import pytest
import torch

from xtune.config.compose import docstring, pieces
from xtune.config.flatten import flatten
from xtune.config.load import load
from xtune.config.presets import BASE, find, presets
from xtune.config.wire import wire
from xtune.errors import ModelError
from xtune.models.loading.model_class import auto_class
from xtune.planning.architecture import SHIPPED, architecture
from xtune.planning.published_configs import entries, shipped_config, with_likes
from xtune.planning.report import make_plan
from xtune.utils.quiet import quiet

PARTS = pieces(BASE, 'models')


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """Nothing can be fetched, and nothing is in the hub's cache."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))


def preset_job(name, **options):
    return wire(load(find(name), options), name)


def base_model(part):
    return re.search(r"base_model = '(.*)'", PARTS[part].read_text(encoding='utf-8'))[1]


# The smallest of each layout; the others are marked slow.
KINDS = {entry.get('type') or entry['original']: part for part, entry in reversed(entries().items())}
QUICK = [part for part in KINDS.values() if not re.search(r'[1-9]\d+b', part)]


@pytest.mark.parametrize('part', [pytest.param(p, marks=() if p in QUICK else pytest.mark.slow) for p in PARTS])
def test_the_shipped_values_give_as_many_parameters_as_the_model_has(part):
    said = float(re.search(r'([\d.]+) B parameters', docstring(PARTS[part]))[1])
    config = shipped_config(part, base_model(part))
    with quiet(), torch.device('meta'):
        model = auto_class(config).from_config(config)
    # 0.13 B is said of 0.135 B
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(said, rel=0.04)


def test_the_architecture_of_every_preset_is_shipped():
    with quiet():
        configs = {part: shipped_config(part, base_model(part)) for part in PARTS}
    assert all(config.num_hidden_layers > 10 and config.vocab_size > 30_000 for config in configs.values())


def test_every_preset_has_a_model_whose_values_are_shipped():
    models = {re.search(r'_base_\.models\.(\w+)', path.read_text(encoding='utf-8'))[1] for path in presets().values()}
    assert len(models) > 80 and models <= set(entries()) == set(PARTS)


@pytest.mark.parametrize('name', ['llama3_70b_chat_qlora_oasst1_e3', 'chatglm3_6b_qlora_sql_e3', 'yi_34b_full_sql_e1'])
def test_a_preset_is_found_without_a_connection(name):
    found = architecture(preset_job(name))
    assert found.source == SHIPPED and found.config.hidden_size in (8192, 4096, 7168)


def test_what_the_section_llm_changes_holds_for_shipped_values_too():
    name = 'qwen3_8b_lora_alpaca_enzh_e3'
    found = architecture(preset_job(name, **{'llm.max_position_embeddings': 77}))
    assert (found.source, found.config.max_position_embeddings) == (SHIPPED, 77)


def test_a_folder_is_taken_before_the_shipped_values(tmp_path):
    folder = tmp_path / 'Llama-2-7b-hf'
    folder.mkdir()
    small = shipped_config('llama2_7b', 'x/y').to_dict() | dict(num_hidden_layers=3)
    (folder / 'config.json').write_text(json.dumps(small), encoding='utf-8')
    found = architecture(preset_job('llama2_7b_qlora_oasst1_e3', base_model=str(folder)))
    assert (found.source, found.config.num_hidden_layers) == (f'from {folder}', 3)


@pytest.mark.parametrize('options', [{'base_model': 'some/other-model'}, {'llm.revision': 'older'}])
def test_values_are_not_shipped_for_other_models_and_revisions(options):
    with pytest.raises(ModelError, match='HF_HUB_OFFLINE'):
        architecture(preset_job('llama2_7b_qlora_oasst1_e3', **options))


def test_an_entry_takes_the_values_of_the_one_it_is_like():
    raw = dict(a=dict(x=1, y=2), b=dict(like='a', y=3), c=dict(like='b', z=4))
    assert with_likes(raw) == dict(a=dict(x=1, y=2), b=dict(x=1, y=3), c=dict(x=1, y=3, z=4))


def test_plan_and_list_cfg_tell_one_figure_without_a_connection(xtune, tmp_path):
    config = tmp_path / 'mine.py'
    quick = {'speed.compile': False, 'max_length': 64, 'pack': False, 'lora.target_modules': ['q_proj']}
    config.write_text(flatten(find('smollm2_135m_lora_selfcog_e2'), quick), encoding='utf-8')
    plan = make_plan(wire(load(config), 'mine'), (), None)
    assert plan.source == plan.to_dict()['architecture'] == SHIPPED
    least = f'{plan.to_dict()["memory"]["needed"] / 2**30:.2f} GiB'
    assert f'at least {least} on one device' in xtune('list-cfg', config)[1]


@pytest.mark.slow
@pytest.mark.parametrize('name', presets())
def test_every_preset_is_planned_without_a_connection(name, xtune):
    code, out, err = xtune('plan', name, '--memory', '80', '--json', '--gpus', '8')
    assert code == 0, err
    assert json.loads(out)['architecture'] == SHIPPED
