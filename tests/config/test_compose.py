"""Any model, method and data set make a preset by name; what cannot be one says which piece is wrong."""

import re

import pytest

from xtune.config import compose
from xtune.config.flatten import flatten
from xtune.config.lazy import comparable, root, to_plain
from xtune.config.load import load
from xtune.config.presets import BASE, ROOT, find, presets
from xtune.config.wire import wire
from xtune.data import map_fns
from xtune.errors import ConfigError, ModelError

MODELS, METHODS, DATASETS = (compose.pieces(BASE, kind) for kind in ('models', 'methods', 'datasets'))

# Beginning of a model part's name -> its model_type on the hub. Those of 2023 with code of their own are not here.
TYPES = {
    'codellama': 'llama',
    'deepseek_coder': 'llama',
    'deepseek_llm': 'llama',
    'deepseek_r1_llama': 'llama',
    'deepseek_r1_qwen': 'qwen2',
    'deepseek_v2': 'deepseek_v2',
    'gemma_': 'gemma',
    'gemma2_': 'gemma2',
    'gemma3_': 'gemma3_text',
    'glm4_0414': 'glm4',
    'glm4_9b': 'glm',
    'gpt_oss': 'gpt_oss',
    'internlm3': 'internlm3',
    'llama': 'llama',
    'minicpm3': 'minicpm3',
    'mistral': 'mistral',
    'mixtral': 'mixtral',
    'phi3_': 'phi3',
    'phi4': 'phi3',
    'qwen1_5': 'qwen2',
    'qwen2_': 'qwen2',
    'qwen3_235b_a22b': 'qwen3_moe',
    'qwen3_30b_a3b': 'qwen3_moe',
    'qwen3': 'qwen3',
    'smollm2': 'llama',
    'smollm3': 'smollm3',
    'starcoder2': 'starcoder2',
    'starcoder': 'gpt_bigcode',
    'tinyllama': 'llama',
    'yi': 'llama',
    'zephyr': 'mistral',
}
LEGACY = ('baichuan', 'chatglm', 'internlm_', 'qwen_')


def refusal(name):
    with pytest.raises(ConfigError) as caught:
        find(name)
    return str(caught.value)


def load_text(name, folder):
    path = folder / f'{name}.py'
    path.write_text(compose.flat_text(compose.parse(name, BASE), BASE), encoding='utf-8')
    return load(path)


def test_every_method_fits_every_data_set(tmp_path):
    for method in METHODS:
        for dataset in DATASETS:
            cfg = load_text(f'qwen2_5_7b_chat_{method}_{dataset}_e2', tmp_path)
            train = to_plain(cfg)['train_dataset']
            map_fn = root((train[0] if isinstance(train, list) else train)['map_fn'])[1]
            demanded = [line for line in compose.DEMANDS.get(map_fn, ()) if line.startswith('template')]
            assert f'template = {cfg.template!r}' in (demanded or ["template = 'auto'"]), dataset
            assert (cfg.schedule.max_epochs, cfg.base_model) == (2, 'Qwen/Qwen2.5-7B-Instruct')


def test_every_model_takes_a_method_and_a_data_set(tmp_path):
    for model in MODELS:
        cfg = load_text(f'{model}_lora_alpaca_e1', tmp_path)
        assert f'base_model = {cfg.base_model!r}' in MODELS[model].read_text(encoding='utf-8')
        assert compose.model_part(cfg.base_model, BASE) == MODELS[model]
        assert re.search(r'[\d.]+ B parameters', compose.docstring(MODELS[model]))


def test_transformers_has_the_class_of_every_model():
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for model in MODELS:
        if not model.startswith(LEGACY):
            kind = next(kind for start, kind in TYPES.items() if model.startswith(start))
            assert kind in CONFIG_MAPPING and MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind].endswith('CausalLM'), model


def test_a_composed_preset_is_what_the_file_of_that_name_is(tmp_path):
    # Presets whose file changes more than their name says are left out.
    plain = {
        name: path
        for name, path in presets().items()
        if not any(word in name for word in ('moss', 'llama2_70b', 'wizardlm', 'skypile', 'smollm2_135m', 'example'))
        and not name.endswith(('_hf', '_mmlu_e3'))
    }
    one_of_each = {name.partition('lora_')[2] or name: name for name in plain}
    assert len(one_of_each) > 20
    for name in one_of_each.values():
        composed = comparable(to_plain(load_text(name, tmp_path)))
        assert composed == comparable(to_plain(load(plain[name]))), name


@pytest.mark.parametrize(
    ('name', 'sections'),
    [
        ('qwen3_8b_qlora_medqa_e2', dict(template='qwen3', overlong='truncate')),
        ('gpt_oss_20b_lora_medqa_e2', dict(template='gpt_oss', pack=False)),
        ('qwen3_8b_full_custom_pretrain_e1', dict(template='plain', overlong='split')),
        ('llama3_8b_chat_lora_moss_sft_all_e1', dict(template='moss_sft', pack=False)),
        ('yi_6b_lora_oasst1_512_e3', dict(template='default', max_length=512)),
    ],
)
def test_find_composes_what_has_no_file(name, sections):
    assert name not in presets()
    path = find(name)
    cfg = load(path, check_types=True)
    assert path.stem == name and {key: cfg[key] for key in sections} == sections
    assert wire(cfg, path.stem).work_dir.name == name


def test_eight_devices_are_a_suffix():
    cfg = load(find('qwen3_8b_qlora_oasst1_e2_gpu8'))
    assert (cfg.schedule.max_epochs, cfg.schedule.batch_size, cfg.schedule.accumulate) == (2, 8, 1)
    assert cfg.data.num_workers == 2


def test_map_functions_that_demand_something_exist_and_are_used():
    assert set(compose.DEMANDS) <= set(map_fns.__all__)
    for map_fn in compose.DEMANDS:
        assert any(map_fn in path.read_text(encoding='utf-8') for path in DATASETS.values())


def test_a_composed_preset_is_flattened_with_comments_and_options(tmp_path):
    copy = tmp_path / 'copy.py'
    copy.write_text(flatten(find('qwen3_8b_qlora_medqa_e2'), {'lora.r': 8}), encoding='utf-8')
    text = copy.read_text(encoding='utf-8')
    assert text.startswith('"""Qwen3-8B, QLoRA, Medication questions, 2 epochs.')
    assert '# the update is scaled by lora_alpha / r' in text and '# Tokens per training sequence.' in text
    assert (load(copy).lora.r, load(copy).schedule.max_epochs) == (8, 2)


def test_composing_writes_to_the_cache_only(own_cache, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in ROOT.rglob('*.py')}
    path = find('qwen3_8b_qlora_medqa_e2')
    assert path == tmp_path / 'cache' / 'presets' / 'qwen3_8b_qlora_medqa_e2.py'
    assert list(path.parent.iterdir()) == [path]
    assert {path: path.stat().st_mtime_ns for path in ROOT.rglob('*.py')} == before


def test_a_composed_preset_follows_its_parts(tmp_path, monkeypatch):
    path = find('qwen3_8b_qlora_medqa_e2')
    path.write_text('of an older version', encoding='utf-8')
    assert load(find('qwen3_8b_qlora_medqa_e2')).schedule.max_epochs == 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('', encoding='utf-8')
    monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / 'file'))
    assert str(tmp_path / 'file') in refusal('qwen3_8b_qlora_medqa_e2')


@pytest.mark.parametrize(
    ('name', 'reasons'),
    [
        ('qwen3_9b_qlora_medqa_e2', ['no model is called `qwen3_9b`; did you mean `qwen3_8b`']),
        ('qwen3_8b_qlora_medqq_e2', ['no data set is called `medqq`; did you mean `medqa`']),
        ('qwen3_8b_qlroa_medqa_e2', ['no method is called `qlroa`; did you mean `qlora`']),
        ('qwen3_8b_dpo_medqa_e2', ['no method is called `dpo`; there are fp8_lora, full, int8_lora, lora, qlora,']),
        ('qwen3_9b_lora_medqq_e2', ['no model is called `qwen3_9b`', 'no data set is called `medqq`']),
        ('qwen3_8b_qlora_medqa', ['does not end in _e<epochs>']),
        ('qwen3_8b_qlora_medqa_e0', ['does not end in _e<epochs>']),
        ('qwen3_8b_qlora_medqa_e2_gpu9', ['does not end in _e<epochs>']),
        ('mixtral_8x7b_chat_qlora_alpaca_e1', ['qlora does not fit', 'mixtral_8x7b_chat_lora_alpaca_e1']),
        ('qwen3_30b_a3b_int8_lora_alpaca_e1', ['int8_lora does not fit']),
        ('nothing_like_it', [compose.FORM]),
        ('qwen3_8b_qlora_medqa_e2.py', ['without .py']),
    ],
)
def test_a_name_that_cannot_be_composed_says_why(name, reasons):
    message = refusal(name)
    assert message.startswith(f'no config file and no preset is called `{name}`')
    assert all(reason in message for reason in reasons), message


def test_a_file_that_is_not_there_is_called_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run.py').touch()
    for name, near in (('./rnu.py', '`run.py`'), ('rnu.py', '`run.py`'), ('runs/mine', 'check its folder')):
        message = refusal(name)
        assert message.startswith(f'config file {name} does not exist; ') and near in message


def test_the_commands_take_composed_names(xtune, tmp_path):
    code, out, _ = xtune('copy-cfg', 'qwen3_8b_qlora_medqa_e2', tmp_path)
    assert code == 0 and load(tmp_path / 'qwen3_8b_qlora_medqa_e2_copy.py').base_model == 'Qwen/Qwen3-8B'
    code, _, err = xtune('train', 'qwen3_8b_qlora_medqa_e2', '--cfg-options', 'max_lenght=8')  # codespell:ignore
    assert code == 2 and 'did you mean `max_length`' in err


def test_list_cfg_shows_what_one_name_is_made_of(xtune, monkeypatch):
    def refuse(_estimator):
        raise ModelError('it is not counted here')  # tests/planning counts

    monkeypatch.setattr('xtune.planning.estimator.MemoryEstimator.minimum', refuse)
    code, out, _ = xtune('list-cfg', 'qwen3_8b_qlora_lawyer_e2')
    lines = out.splitlines()
    assert code == 0 and lines[0].strip() == 'qwen3_8b_qlora_lawyer_e2'
    assert [line.split()[0] for line in lines if line.startswith('data')] == ['data', 'data']
    for part in (
        'Qwen/Qwen3-8B',
        'as law_reference_map_fn',
        '4-bit: r 64',
        'template   qwen3',
        '2,048 tokens',
        '1 x 16',
        'memory     unknown: it is not counted here',
    ):
        assert part in out
    code, _, err = xtune('list-cfg', 'qwen3_8b_qlora_lawyr_e2')
    assert code == 2 and 'did you mean `lawyer`' in err


def test_list_cfg_shows_a_strategy_a_file_and_how_to_compose(xtune, tmp_path):
    assert '"stage": 2' in xtune('list-cfg', 'deepspeed_zero2')[1]
    mine = tmp_path / 'mine.py'
    mine.write_text(flatten(find('smollm2_135m_full_selfcog_e2'), {'base_model': 'my/model'}), encoding='utf-8')
    out = xtune('list-cfg', str(mine))[1]
    assert 'all weights' in out and 'memory     unknown: my/model' in out
    assert compose.FORM in xtune('list-cfg')[1] and compose.FORM not in xtune('list-cfg', '-p', 'qwen')[1]
    assert xtune('list-cfg', 'deepspeed_zero2', '-p', 'zero')[0] == 2
