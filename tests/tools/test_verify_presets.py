"""tools/verify_presets.py: presets of several families and methods run whole, and its tables and page are complete."""

import json
import sys

import pytest
import torch

from xtune.config.load import load
from xtune.config.presets import BASE, presets
from xtune.config.wire import wire
from xtune.data.sources import RowSource

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
    return lambda name: tool(f'verify.{name}' if name else 'verify_presets')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where the copies go."""
    return tmp_path_factory.mktemp('presets')


@pytest.mark.parametrize('name', CHAINS)
def test_a_preset_runs_from_its_name_to_an_answer(name, verify, folder):
    chain = verify('chain')
    result = chain.run(chain.Preset(name), folder)
    assert (result.stages, result.reason) == (tuple(chain.STAGES), '')
    assert result.passed and not (folder / 'runs' / name).exists()


def test_local_rows_stand_in_for_the_rows_of_every_data_set(verify, folder, monkeypatch):
    preset, chosen = verify('preset'), {}
    monkeypatch.setattr(preset, 'make_copy', lambda part, *_: folder / part)
    for name in presets():
        chosen.setdefault(preset.Preset(name).parts['datasets'], name)
    assert len(chosen) > 20
    for name in chosen.values():
        one = preset.Preset(name)
        for source in wire(load(one.path, one.options(folder)), name).train_sources:
            assert source.path == 'self_cognition' or RowSource(source).head(1), name


def test_a_preset_that_fails_says_where_and_why(verify, folder, monkeypatch):
    chain = verify('chain')
    monkeypatch.setitem(verify('settings').CHANGED, 'chat_template', 'chatlm')
    result = chain.run(chain.Preset('smollm2_135m_lora_alpaca_e1'), folder)
    assert result.stages == ('load',) and not result.passed
    assert result.reason.startswith('train: ') and '`chatlm`' in result.reason
    assert 'did you mean' in result.reason and 'chatml' in result.reason


def test_an_alias_is_the_preset_that_it_equals(verify, folder):
    chain = verify('chain')
    result = chain.run(chain.Preset('internlm_7b_qlora_oasst1_e3_hf'), folder)
    assert result.passed and result.alias == 'internlm_7b_qlora_oasst1_e3' and not result.stages


def test_every_model_part_has_an_entry_and_no_entry_is_left_over(verify):
    assert sorted(verify('table').entries()) == PARTS


@pytest.mark.parametrize('part', PARTS)
def test_the_config_class_of_a_copy_knows_every_key(part, verify):
    table = verify('table')
    if 'original' in table.entries()[part]:
        assert table.entries()[part]['original'] in ('internlm', 'baichuan', 'qwen', 'chatglm')
        return
    assert not table.unknown_keys(part)
    tokenizer = verify('toy_tokenizers').toy_tokenizer(table.entries()[part]['tokenizer'])
    config, real = verify('copies').native_config(part, tokenizer), table.published(part)
    assert (
        config.model_type == table.entries()[part]['type'] and config.tie_word_embeddings == real['tie_word_embeddings']
    )
    if 'num_key_value_heads' in real:
        ratio = real['num_attention_heads'] // real['num_key_value_heads']
        assert config.num_attention_heads == ratio * config.num_key_value_heads


def test_a_misspelt_key_of_a_config_is_found(verify, monkeypatch):
    table = verify('table')
    monkeypatch.setitem(table.entries(), 'wrong', dict(type='llama', rms_norm_epsilon=1e-5, rope_theta=1.0))
    assert table.unknown_keys('wrong') == ['rms_norm_epsilon', 'rope_theta']


def test_a_key_without_a_default_reaches_the_layers(verify):
    from transformers import AutoModelForCausalLM

    undeclared = {kind: list(keys) for kind, keys in verify('table').UNDECLARED.items()}
    assert undeclared == {'qwen3_moe': ['head_dim']}
    config = verify('copies').native_config('qwen3_30b_a3b', verify('toy_tokenizers').toy_tokenizer('qwen3'))
    assert AutoModelForCausalLM.from_config(config).model.layers[0].self_attn.head_dim == 128


@pytest.mark.slow
def test_models_without_a_preset_have_a_copy_that_learns(verify, folder):
    from transformers import AutoModelForCausalLM

    preset, copies = verify('preset'), verify('copies')
    left = set(PARTS) - {preset.Preset(name).parts['models'] for name in presets()}
    table = verify('table')
    # Sizes of one model make the same copy.
    distinct = {json.dumps([table.entries()[part]['type'], table.shrunken(part)]): part for part in sorted(left)}
    assert len(distinct) > 10
    for part in distinct.values():
        copy = copies.make_copy(part, f'owner/{part}', folder / 'left')
        llm = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
        ids = torch.arange(48)[None]
        llm(input_ids=ids, labels=ids).loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in llm.parameters()), part


def test_the_page_lists_the_presets_that_there_are_and_all_of_them_were_run(verify):
    """Run python tools/verify_presets.py --only NAME for a preset that is new."""
    page, results = verify('page'), verify('results')
    text = page.PAGE.read_text(encoding='utf-8')
    shown = [line.split('`')[1] for line in text.splitlines() if line.startswith('| `') and line.count(' | ') == 5]
    assert shown == list(presets())
    assert results.NOT_RUN not in text


def test_a_page_is_read_as_it_was_written(verify):
    results, page = verify('results'), verify('page')
    ran = results.Result('a_lora_b_e1', 'qwen', 'a', 'lora', 'b', 'auto', results.STAGES)
    alias = results.Result('a_lora_b_e1_hf', 'qwen', 'a', 'lora', 'b', 'auto', alias='a_lora_b_e1')
    failed = results.Result('a_lora_c_e1', 'yi', 'a', 'lora', 'c', 'auto', ('load',), 'train: <s> is | no `token`; x')
    text = page.render([ran, alias, failed], ['gpt'])
    assert results.rows_of(text) == {one.name: one for one in (ran, alias, failed)}
    assert results.rows_of(text.replace(results.versions(), 'torch 1.0')) == {}


def test_shares_keep_a_model_together_and_leave_nothing_out(verify):
    tool = verify('')
    shares = tool.shares(list(presets()), 3)
    assert sorted(sum(shares, [])) == sorted(presets()) and max(map(len, shares)) < 1.2 * len(presets()) / 3
    models = [{verify('preset').Preset(name).parts['models'] for name in share} for share in shares]
    assert not models[0] & models[1] | models[1] & models[2] | models[0] & models[2]


def test_names_are_chosen_and_listed(verify, monkeypatch, capsys):
    tool = verify('')
    monkeypatch.setattr(sys, 'argv', ['verify_presets.py', '--only', 'smollm2_135m_*_selfcog_e2', '--list'])
    assert tool.main() == 0
    names = capsys.readouterr().out.split()
    assert names == [f'smollm2_135m_{method}_selfcog_e2' for method in ('fp8_lora', 'full', 'lora', 'qlora')]


def test_results_become_the_page_and_failures_the_exit_code(verify, tmp_path, monkeypatch, capsys):
    tool, results, page = verify(''), verify('results'), verify('page')
    monkeypatch.setattr(page, 'earlier', dict)
    for name in presets():
        results.append(tmp_path / 'results-1-of-1.jsonl', results.Result(name, 'x', *'mdat', results.STAGES))
    target = tmp_path / 'page.md'
    assert tool.report(tmp_path, target) == 0 and '**' not in target.read_text(encoding='utf-8')
    bad = results.Result('zephyr_7b_beta_qlora_alpaca_e3', 'x', *'mdat', ('load',), 'train: it broke')
    results.append(tmp_path / 'results-2-of-2.jsonl', bad)
    assert tool.report(tmp_path, target) == 1 and 'load; **train: it broke**' in target.read_text(encoding='utf-8')
    assert 'zephyr_7b_beta_qlora_alpaca_e3: train: it broke' in capsys.readouterr().out


def test_a_row_of_the_page_stands_while_its_preset_is_made_of_the_same(verify, tmp_path, monkeypatch):
    tool, page, preset = verify(''), verify('page'), verify('preset')
    name, other = list(presets())[:2]
    now = {one: preset.Preset(one).result(stages=verify('results').STAGES) for one in (name, other)}
    changed = verify('results').Result(other, *now[other].parts[:-1], 'another_template', now[other].stages)
    monkeypatch.setattr(page, 'earlier', lambda: {name: now[name], other: changed})
    tool.report(tmp_path, tmp_path / 'page.md')
    rows = (tmp_path / 'page.md').read_text(encoding='utf-8').splitlines()
    assert now[name].row() in rows and changed.row() not in rows
    assert preset.Preset(other).result().row() in rows
