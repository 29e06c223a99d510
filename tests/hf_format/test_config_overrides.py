"""Model settings that a run changed are in the adapter folder and apply in chats, merged and fully tuned models."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config, LlamaConfig

from xtune.errors import ModelError
from xtune.hf_format.config_overrides import FILE, apply, differences, read_overrides, write_overrides
from xtune.inference.load import load_for_inference

CPU = torch.device('cpu')
ROPE = dict(rope_type='linear', factor=8.0, rope_theta=10000.0)
SETTINGS = {'llm.rope_parameters': ROPE, 'llm.rms_norm_eps': 0.5, 'llm.hidden_act': 'gelu'}
CHANGED = {key.removeprefix('llm.'): value for key, value in SETTINGS.items()}


@pytest.fixture
def run(make_config, xtune, tmp_path):
    """Return a function that trains one epoch and converts; it returns the folder and what the commands printed."""

    def train(method, **options):
        small = {'schedule.max_epochs': 1, 'optimizer.lr': 5e-2, 'log.plot': False}
        config = make_config(method, **small, **options)
        code, out, err = xtune('train', config)
        assert code == 0, err
        code, more, err = xtune('convert', 'pth_to_hf', config, config.with_suffix('') / 'epoch_1.pth', tmp_path / 'hf')
        assert code == 0, err
        return tmp_path / 'hf', out, more

    return train


def logits(llm):
    with torch.no_grad():
        return llm(input_ids=torch.arange(3, 60)[None]).logits


def test_settings_reach_the_adapter_the_chat_and_the_merged_model(run, xtune, tiny_model, tmp_path, capsys):
    adapter, *printed = run('lora', **SETTINGS, **{'llm.attention_dropout': 0.1, 'llm.attn_implementation': 'eager'})
    assert all('note: the adapter' in text and FILE in text for text in printed)
    written = json.loads((adapter / FILE).read_text())
    assert written == dict(base_model=str(tiny_model), config_overrides=CHANGED)
    assert not (adapter / 'config.json').exists()

    code, _, err = xtune('convert', 'merge', tiny_model, adapter, tmp_path / 'merged')
    assert code == 0 and 'rms_norm_eps = 0.5' in err, err
    config = AutoConfig.from_pretrained(tmp_path / 'merged')
    assert {key: getattr(config, key) for key in CHANGED} == CHANGED
    trained = logits(load_for_inference(str(tiny_model), str(adapter), CPU, torch.float32))
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / 'merged'))
    torch.testing.assert_close(merged, trained, rtol=0, atol=1e-4)
    (adapter / FILE).unlink()
    assert (logits(load_for_inference(str(tiny_model), str(adapter), CPU, torch.float32)) - trained).abs().max() > 0.01


def test_a_fully_tuned_model_has_the_settings_in_its_config(run):
    folder, *printed = run('full', **SETTINGS)
    config = AutoConfig.from_pretrained(folder)
    assert {key: getattr(config, key) for key in CHANGED} == CHANGED
    assert not (folder / FILE).exists() and not any('note: the adapter' in text for text in printed)


def test_without_changed_settings_there_is_no_file(run):
    adapter, *printed = run('lora', **{'llm.attention_dropout': 0.1, 'llm.attn_implementation': 'eager'})
    assert not (adapter / FILE).exists() and not any('note: the adapter' in text for text in printed)


def test_neutral_keys_are_ignored_and_nested_keys_are_not():
    stored = Gemma3Config().to_dict()
    trained = Gemma3Config(use_cache=False, dtype='float16').to_dict()
    assert differences(trained, stored) == {}
    trained['text_config'] |= dict(sliding_window=7, attention_dropout=0.5)
    assert differences(trained, stored) == dict(text_config=dict(sliding_window=7))
    config = Gemma3Config()
    apply(config, dict(text_config=dict(sliding_window=7)))
    assert config.text_config.sliding_window == 7
    with pytest.raises(KeyError, match='text_config'):
        apply(LlamaConfig(), dict(text_config=dict(sliding_window=7)))


def test_a_damaged_file_is_refused(tmp_path):
    write_overrides(tmp_path, 'base', CHANGED)
    assert read_overrides(str(tmp_path)) == CHANGED and read_overrides(None) == {}
    (tmp_path / FILE).write_text('{"config_overrides": [1]}')
    with pytest.raises(ModelError, match='config_overrides'):
        read_overrides(str(tmp_path))
