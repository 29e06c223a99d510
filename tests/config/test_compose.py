"""Any model, method and data set make a preset by name; what cannot be one says which part is wrong."""

import re

import pytest

from xtune.config import compose
from xtune.config.flatten import flatten
from xtune.config.lazy import comparable, root, to_plain
from xtune.config.load import load
from xtune.config.model_table import rules
from xtune.config.preset_names import FORM, parse
from xtune.config.presets import BASE, ROOT, find, presets, recipe_of
from xtune.config.sections import SECTIONS
from xtune.config.wire import wire
from xtune.data import map_fns
from xtune.errors import ConfigError, ModelError

MODELS, METHODS, DATASETS = map(compose.part_files, ('models', 'methods', 'datasets'))

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
    path.write_text(compose.flat_text(parse(name)), encoding='utf-8')
    return load(path)


@pytest.mark.integration
def test_every_method_fits_every_data_set(tmp_path):
    for method in METHODS:
        for dataset in DATASETS:
            cfg = load_text(f'qwen2_5_7b_chat_{method}_{dataset}_e2', tmp_path)
            train = to_plain(cfg)['train_dataset']
            map_fn = root((train[0] if isinstance(train, list) else train)['map_fn'])[1]
            options = compose.DATASET_OPTIONS.get(map_fn, {})
            assert cfg.chat_template == options.get('chat_template', 'auto'), dataset
            assert (cfg.schedule.max_epochs, cfg.base_model) == (2, 'Qwen/Qwen2.5-7B-Instruct')


@pytest.mark.integration
def test_every_model_takes_a_method_and_a_data_set(tmp_path):
    for model in MODELS:
        cfg = load_text(f'{model}_lora_alpaca_e1', tmp_path)
        assert f'base_model = {cfg.base_model!r}' in MODELS[model].read_text(encoding='utf-8')
        assert compose.model_part(cfg.base_model) == MODELS[model]
        assert re.search(r'[\d.]+ B parameters', compose.docstring(MODELS[model]))


def test_transformers_has_the_class_of_every_model():
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for model in MODELS:
        if not model.startswith(LEGACY):
            kind = next(kind for start, kind in TYPES.items() if model.startswith(start))
            assert kind in CONFIG_MAPPING and MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind].endswith('CausalLM'), model


@pytest.mark.integration
def test_a_preset_is_its_parts_and_its_options(tmp_path):
    """Each listed name: the composed file, and mmengine's reading of the same parts with the options on top."""
    link = tmp_path / '_base_'
    link.symlink_to(BASE)
    merged, seen = tmp_path / 'merged.py', set()
    for name in presets():
        recipe = recipe_of(name)
        kind = (recipe.method, recipe.dataset, tuple(map(str, recipe.options().items())))
        if {kind, recipe.model} <= seen:  # each model, and each method and data set with their options
            continue
        seen |= {kind, recipe.model}
        parts = [path.relative_to(BASE).with_suffix('') for path in recipe.files]
        imports = ''.join(f'    from ._base_.{".".join(part.parts)} import *\n' for part in parts)
        merged.write_text(f'from mmengine.config import read_base\nwith read_base():\n{imports}', encoding='utf-8')
        composed = to_plain(load(find(name)))
        assert comparable(composed) == comparable(to_plain(load(merged, recipe.options()))), name
    assert len(seen) > 160


def options(name):
    """Return what a preset sets beside its parts, but for the number of epochs."""
    return {key: value for key, value in recipe_of(name).options().items() if key != 'schedule.max_epochs'}


TINY = {'schedule.gradient_accumulation_steps': 1, 'activation_checkpointing': 'none', 'log.every_steps': 5}
TINY_LORA = {**TINY, 'optimizer.lr': 2e-3, 'lora.r': 16, 'lora.lora_alpha': 32, 'lora.lora_dropout': 0.0}
LLAMA2_70B = {'optimizer.lr': 3e-4, 'lora.target_modules': ['gate_proj', 'down_proj', 'up_proj']}
STARCODER = {'lora.r': 16, 'lora.lora_alpha': 32, 'lora.lora_dropout': 0.05, 'optimizer.lr': 1e-4}
STARCODER |= {'optimizer.weight_decay': 0.05, 'lora.target_modules': ['c_proj', 'c_attn', 'q_attn']}
MOSS = {'chat_template': 'moss_sft', 'train_dataset.map_args.bot_name': 'Qwen'}
GPUS = {'schedule.batch_size': 8, 'schedule.gradient_accumulation_steps': 1, 'data.num_workers': 2}


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('llama2_70b_qlora_open_platypus_e1', LLAMA2_70B),
        ('llama2_70b_qlora_alpaca_e3', LLAMA2_70B),
        ('llama2_70b_full_alpaca_e3', {}),
        ('smollm2_135m_qlora_selfcog_e2', TINY_LORA),
        ('smollm2_135m_qlora_selfcog_e3', TINY_LORA),
        ('smollm2_135m_full_selfcog_e2', {**TINY, 'optimizer.lr': 2e-4}),
        ('smollm2_135m_lora_alpaca_e2', {'max_length': 1024}),
        ('smollm2_360m_lora_selfcog_e2', {}),
        ('starcoder_qlora_stack_exchange_example', STARCODER),
        ('starcoder_qlora_stack_exchange_e1', STARCODER),
        ('gpt_oss_120b_lora_alpaca_e1', {'pack': False}),
        ('qwen_7b_qlora_moss_sft_plugins_e3', MOSS),
        ('qwen_7b_qlora_moss_sft_plugins_e1_gpu8', {**MOSS, **GPUS}),
        ('llama2_7b_full_wizardlm_e1_gpu8', GPUS),
        ('qwen3_8b_qlora_alpaca_e1', {}),
    ],
)
def test_rules_of_a_model_hold_for_every_name_of_it(name, expected):
    assert options(name) == expected
    cfg = load(find(name))
    for option, value in expected.items():
        node = cfg
        for key in option.split('.'):
            node = node[key]
        assert node == value, option


def test_the_name_that_moss_conversations_teach_is_the_models():
    for name, bot in (('internlm_7b', 'InternLM'), ('llama_7b', 'Llama'), ('yi_6b', 'MOSS')):
        sources = load(find(f'{name}_qlora_moss_sft_all_e3')).train_dataset
        assert [source.map_args.bot_name for source in sources] == [bot, bot], name


def test_rules_name_what_exists():
    for rule in rules():
        assert rule.model in MODELS
        assert any(rule.fits(method, dataset) for method in METHODS for dataset in DATASETS), rule
        assert all(key.split('.')[0] in SECTIONS for key in rule.values), rule


def test_only_the_listed_models_have_rules():
    """A table of the settings that differ from the parts; extend it with a new rule."""
    assert sorted({rule.model for rule in rules()}) == [
        'gpt_oss_120b',
        'gpt_oss_20b',
        'llama2_70b',
        'llama2_7b',
        'mistral_7b',
        'smollm2_135m',
        'starcoder',
    ]


@pytest.mark.parametrize(
    ('name', 'sections'),
    [
        ('qwen3_8b_qlora_medqa_e2', dict(chat_template='qwen3', overlong='truncate')),
        ('gpt_oss_20b_lora_medqa_e2', dict(chat_template='gpt_oss', pack=False)),
        ('qwen3_8b_full_custom_pretrain_e1', dict(chat_template='plain', overlong='split')),
        ('llama3_8b_chat_lora_moss_sft_all_e1', dict(chat_template='moss_sft', pack=False)),
        ('yi_6b_lora_oasst1_512_e3', dict(chat_template='default', max_length=512)),
    ],
)
def test_find_composes_what_is_not_listed(name, sections):
    assert name not in presets()
    path = find(name)
    cfg = load(path, check_types=True)
    assert path.stem == name and {key: cfg[key] for key in sections} == sections
    assert wire(cfg, path.stem).work_dir.name == name


def test_eight_devices_are_a_suffix():
    cfg = load(find('qwen3_8b_qlora_oasst1_e2_gpu8'))
    assert (cfg.schedule.max_epochs, cfg.schedule.batch_size, cfg.schedule.gradient_accumulation_steps) == (2, 8, 1)
    assert cfg.data.num_workers == 2


def test_map_functions_with_options_exist_and_are_used():
    assert set(compose.DATASET_OPTIONS) <= set(map_fns.__all__)
    for map_fn in compose.DATASET_OPTIONS:
        assert any(map_fn in path.read_text(encoding='utf-8') for path in DATASETS.values())


def test_a_composed_preset_is_flattened_with_comments_and_options(tmp_path):
    copy = tmp_path / 'copy.py'
    copy.write_text(flatten(find('qwen3_8b_qlora_medqa_e2'), {'lora.r': 8}), encoding='utf-8')
    text = copy.read_text(encoding='utf-8')
    assert text.startswith('"""Qwen3-8B, QLoRA, Medication questions, 2 epochs.')
    assert '# the update is scaled by lora_alpha / r' in text and '# Tokens per' in text
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


NAMES = [
    'qwen3_9b_qlora_medqa_e2',
    'qwen3_8b_qlora_medqq_e2',
    'qwen3_8b_qlroa_medqa_e2',
    'qwen3_8b_dpo_medqa_e2',
    'qwen3_9b_lora_medqq_e2',
    'qwen3_8b_qlora_medqa',
    'qwen3_8b_qlora_medqa_e0',
    'qwen3_8b_qlora_medqa_e2_gpu9',
    'mixtral_8x7b_chat_qlora_alpaca_e1',
    'qwen3_30b_a3b_int8_lora_alpaca_e1',
    'nothing_like_it',
    'qwen3_8b_qlora_medqa_e2.py',
]


def test_a_name_that_cannot_be_composed_says_why(golden):
    messages = {name: refusal(name) for name in NAMES}
    assert all(f'`{name}`' in message for name, message in messages.items())
    golden('config.names_of_presets', messages)


def test_a_file_that_is_not_there_is_called_a_file(tmp_path, golden, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run.py').touch()
    golden('config.missing_files', {name: refusal(name) for name in ('./rnu.py', 'rnu.py', 'runs/mine')})


def test_the_commands_take_composed_names(xtune, tmp_path):
    code, out, _ = xtune('copy-cfg', 'qwen3_8b_qlora_medqa_e2', tmp_path)
    assert code == 0 and load(tmp_path / 'qwen3_8b_qlora_medqa_e2_copy.py').base_model == 'Qwen/Qwen3-8B'
    code, _, err = xtune('train', 'qwen3_8b_qlora_medqa_e2', '--cfg-options', 'max_lenght=8')  # codespell:ignore
    assert code == 2 and '`max_length`' in err


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
    assert code == 2 and '`lawyer`' in err


def test_list_cfg_shows_a_strategy_a_file_and_how_to_compose(xtune, tmp_path):
    assert '"stage": 2' in xtune('list-cfg', 'deepspeed_zero2')[1]
    mine = tmp_path / 'mine.py'
    mine.write_text(flatten(find('smollm2_135m_full_selfcog_e2'), {'base_model': 'my/model'}), encoding='utf-8')
    out = xtune('list-cfg', str(mine))[1]
    assert 'method     full fine-tuning' in out and 'memory     unknown: my/model' in out
    assert FORM in xtune('list-cfg')[1] and FORM not in xtune('list-cfg', '-p', 'qwen')[1]
    assert xtune('list-cfg', 'deepspeed_zero2', '-p', 'zero')[0] == 2
