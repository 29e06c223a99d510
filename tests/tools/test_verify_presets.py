"""tools/verify_presets.py: presets of several families and methods run all stages; tables and page are complete."""

import json
import sys

import pytest
import torch

from xtune.config.load import load
from xtune.config.presets import BASE, presets
from xtune.config.wire import wire
from xtune.data.sources import RowSource

pytestmark = pytest.mark.integration

PARTS = sorted(path.stem for path in (BASE / 'models').glob('*.py') if path.stem != '__init__')
# A remote-code checkpoint with NF4; full fine-tuning with sliding windows; text. Slow: a mixture of experts; MOSS on 8
# GPUs; int8.
CHAINS = (
    'baichuan2_13b_chat_qlora_alpaca_enzh_oasst1_e3',
    'gemma3_1b_chat_full_custom_sft_e1',
    'mistral_7b_qlora_skypile_pretrain_e1',
    pytest.param('deepseek_v2_lite_chat_lora_oasst1_e3', marks=pytest.mark.slow),
    pytest.param('qwen_7b_qlora_moss_sft_all_e2_gpu8', marks=pytest.mark.slow),
    pytest.param('llama2_70b_int8_lora_open_platypus_e1', marks=pytest.mark.slow),
)


@pytest.fixture(scope='module')
def verify(tool):
    """Return a function that imports a module of the tool."""
    return lambda name: tool(f'preset_checks.{name}' if name else 'verify_presets')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The folder of the model copies."""
    return tmp_path_factory.mktemp('presets')


@pytest.mark.parametrize('name', CHAINS)
def test_a_preset_runs_from_its_name_to_an_answer(name, verify, folder):
    stages = verify('stages')
    result = stages.run_stages(stages.Preset(name), folder)
    assert (result.stages, result.reason) == (tuple(stages.STAGES), '')
    assert result.passed and not (folder / 'runs' / name).exists()


def test_every_data_set_has_local_rows(verify, folder, monkeypatch):
    preset, chosen = verify('preset'), {}
    monkeypatch.setattr(preset, 'make_copy', lambda part, *_: folder / part)
    for name in presets():
        chosen.setdefault(preset.Preset(name).parts['datasets'], name)
    assert len(chosen) > 20
    for name in chosen.values():
        one = preset.Preset(name)
        for source in wire(load(one.path, one.options(folder)), name).train_sources:
            assert source.path == 'self_cognition' or RowSource(source).head(1), name


def test_a_failed_preset_has_its_stage_and_reason(verify, folder, monkeypatch):
    stages = verify('stages')
    monkeypatch.setitem(verify('overrides').OVERRIDES, 'chat_template', 'chatlm')
    result = stages.run_stages(stages.Preset('smollm2_135m_lora_alpaca_e1'), folder)
    assert result.stages == ('load',) and not result.passed
    assert result.reason.startswith('train: ') and '`chatlm`' in result.reason
    assert 'did you mean' in result.reason and 'chatml' in result.reason


def test_an_alias_passes_without_a_run(verify, folder):
    stages = verify('stages')
    result = stages.run_stages(stages.Preset('internlm_7b_qlora_oasst1_e3_hf'), folder)
    assert result.passed and result.alias == 'internlm_7b_qlora_oasst1_e3' and not result.stages


def test_model_parts_and_entries_are_the_same(verify):
    assert sorted(verify('small_configs').entries()) == PARTS


@pytest.mark.parametrize('part', PARTS)
def test_the_config_class_of_a_copy_knows_every_key(part, verify):
    configs = verify('small_configs')
    if 'original' in configs.entries()[part]:
        assert configs.entries()[part]['original'] in ('internlm', 'baichuan', 'qwen', 'chatglm')
        return
    assert not configs.unknown_keys(part)
    tokenizer = verify('toy_tokenizers').toy_tokenizer(configs.entries()[part]['tokenizer'])
    config, real = verify('model_copies').native_config(part, tokenizer), configs.published(part)
    assert (
        config.model_type == configs.entries()[part]['type']
        and config.tie_word_embeddings == real['tie_word_embeddings']
    )
    if 'num_key_value_heads' in real:
        ratio = real['num_attention_heads'] // real['num_key_value_heads']
        assert config.num_attention_heads == ratio * config.num_key_value_heads


def test_a_misspelled_key_of_a_config_is_found(verify, monkeypatch):
    configs = verify('small_configs')
    monkeypatch.setitem(configs.entries(), 'wrong', dict(type='llama', rms_norm_epsilon=1e-5, rope_theta=1.0))
    assert configs.unknown_keys('wrong') == ['rms_norm_epsilon', 'rope_theta']


def test_a_key_without_a_default_reaches_the_layers(verify):
    from transformers import AutoModelForCausalLM

    undeclared = {kind: list(keys) for kind, keys in verify('small_configs').UNDECLARED.items()}
    assert undeclared == {'qwen3_moe': ['head_dim']}
    config = verify('model_copies').native_config('qwen3_30b_a3b', verify('toy_tokenizers').toy_tokenizer('qwen3'))
    assert AutoModelForCausalLM.from_config(config).model.layers[0].self_attn.head_dim == 128


@pytest.mark.slow
def test_models_without_a_preset_have_a_copy_with_finite_gradients(verify, folder):
    from transformers import AutoModelForCausalLM

    preset, copies = verify('preset'), verify('model_copies')
    without_preset = set(PARTS) - {preset.Preset(name).parts['models'] for name in presets()}
    configs = verify('small_configs')
    # Models that differ only in size have the same copy.
    distinct = {
        json.dumps([configs.entries()[part]['type'], configs.small_values(part)]): part
        for part in sorted(without_preset)
    }
    assert len(distinct) > 10
    for part in distinct.values():
        copy = copies.make_copy(part, f'owner/{part}', folder / 'without_preset')
        llm = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
        ids = torch.arange(48)[None]
        llm(input_ids=ids, labels=ids).loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in llm.parameters()), part


def test_the_page_has_a_result_for_each_preset(verify):
    """For a new preset, run python tools/verify_presets.py --only NAME."""
    page, results = verify('page'), verify('results')
    text = page.PAGE.read_text(encoding='utf-8')
    shown = [line.split('`')[1] for line in text.splitlines() if line.startswith('| `') and line.count(' | ') == 5]
    assert shown == list(presets())
    assert results.NOT_RUN not in text


def test_a_page_is_parsed_into_the_same_results(verify):
    results, page = verify('results'), verify('page')
    passed = results.Result('a_lora_b_e1', 'qwen', 'a', 'lora', 'b', 'auto', results.STAGES)
    alias = results.Result('a_lora_b_e1_hf', 'qwen', 'a', 'lora', 'b', 'auto', alias='a_lora_b_e1')
    failed = results.Result('a_lora_c_e1', 'yi', 'a', 'lora', 'c', 'auto', ('load',), 'train: <s> is | no `token`; x')
    text = page.render([passed, alias, failed], ['gpt'])
    assert results.rows_of(text) == {result.name: result for result in (passed, alias, failed)}
    assert results.rows_of(text.replace(results.versions(), 'torch 1.0')) == {}


def test_shards_contain_all_presets_and_keep_a_model_together(verify):
    tool = verify('')
    shards = tool.split(list(presets()), 3)
    assert sorted(sum(shards, [])) == sorted(presets()) and max(map(len, shards)) < 1.2 * len(presets()) / 3
    models = [{verify('preset').Preset(name).parts['models'] for name in shard} for shard in shards]
    assert not models[0] & models[1] | models[1] & models[2] | models[0] & models[2]


def test_matching_names_are_listed(verify, monkeypatch, capsys):
    tool = verify('')
    monkeypatch.setattr(sys, 'argv', ['verify_presets.py', '--only', 'smollm2_135m_*_selfcog_e2', '--list'])
    assert tool.main() == 0
    names = capsys.readouterr().out.split()
    assert names == [f'smollm2_135m_{method}_selfcog_e2' for method in ('fp8_lora', 'full', 'lora', 'qlora')]


def test_a_failure_is_on_the_page_and_in_the_exit_code(verify, tmp_path, monkeypatch, capsys):
    tool, results, page = verify(''), verify('results'), verify('page')
    monkeypatch.setattr(page, 'current_rows', dict)
    for name in presets():
        results.append(tmp_path / 'results-1-of-1.jsonl', results.Result(name, 'x', *'mdat', results.STAGES))
    target = tmp_path / 'page.md'
    assert tool.report(tmp_path, target) == 0 and '**' not in target.read_text(encoding='utf-8')
    failed = results.Result('zephyr_7b_beta_qlora_alpaca_e3', 'x', *'mdat', ('load',), 'train: it broke')
    results.append(tmp_path / 'results-2-of-2.jsonl', failed)
    assert tool.report(tmp_path, target) == 1 and 'load; **train: it broke**' in target.read_text(encoding='utf-8')
    assert 'zephyr_7b_beta_qlora_alpaca_e3: train: it broke' in capsys.readouterr().out


def test_a_row_of_the_page_is_kept_while_its_preset_is_unchanged(verify, tmp_path, monkeypatch):
    tool, page, preset = verify(''), verify('page'), verify('preset')
    name, other = list(presets())[:2]
    now = {one: preset.Preset(one).result(stages=verify('results').STAGES) for one in (name, other)}
    changed = verify('results').Result(other, *now[other].parts[:-1], 'another_template', now[other].stages)
    monkeypatch.setattr(page, 'current_rows', lambda: {name: now[name], other: changed})
    tool.report(tmp_path, tmp_path / 'page.md')
    rows = (tmp_path / 'page.md').read_text(encoding='utf-8').splitlines()
    assert now[name].row() in rows and changed.row() not in rows
    assert preset.Preset(other).result().row() in rows
