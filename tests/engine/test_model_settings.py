"""Settings with which the same weights have other outputs, and settings without this effect."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from xtune.config.checkpoint_config import stored_sections
from xtune.engine.base_fingerprint import weight_fingerprint
from xtune.engine.model_settings import ModelSettings, plain
from xtune.engine.resume_checks import check_built
from xtune.engine.setting_differences import differences
from xtune.errors import CheckpointError


def settings(lora=None, model=None, text='', base='base'):
    adapter = plain(LoraConfig(**{'r': 8, 'lora_alpha': 16, 'target_modules': ['q_proj'], **(lora or {})}))
    config = plain(LlamaConfig(num_hidden_layers=2, **(model or {})))
    return ModelSettings(base, adapter, config, stored_sections(text, ('llm', 'quantization')))


def changed(saved, current, compare_modules=True):
    return [line.partition(':')[0] for line in differences(saved, current, compare_modules)]


@pytest.mark.parametrize(
    ('lora', 'names'),
    [
        ({'lora_alpha': 32}, ['lora.lora_alpha']),
        ({'r': 4, 'use_rslora': True}, ['lora.r', 'lora.use_rslora']),
        ({'use_dora': True}, ['lora.use_dora']),
        ({'alpha_pattern': {'0.q_proj': 4}}, ['lora.alpha_pattern.0.q_proj']),
        ({'rank_pattern': {'q_proj': 4}}, ['lora.rank_pattern.q_proj']),
        ({'target_modules': ['k_proj', 'q_proj']}, ['lora.target_modules']),
        ({'init_lora_weights': 'pissa'}, ['lora.init_lora_weights']),
        # options of training, and values without effect
        ({'lora_dropout': 0.5, 'task_type': 'CAUSAL_LM', 'base_model_name_or_path': 'elsewhere'}, []),
        ({'init_lora_weights': 'gaussian'}, []),
        ({'target_modules': {'q_proj'}, 'modules_to_save': []}, []),
    ],
)
def test_settings_of_an_adapter(lora, names):
    assert changed(settings(), settings(lora)) == names
    assert changed(settings(lora), settings()) == names


def test_target_modules_are_compared_only_on_request():
    assert not changed(settings(), settings({'target_modules': 'all-linear'}), compare_modules=False)


def test_keys_missing_in_an_older_peft_config_have_their_defaults():
    saved = settings()
    for key in ('use_dora', 'qalora_group_size', 'alpha_pattern', 'lora_bias'):
        del saved.adapter[key]
    assert not changed(saved, settings())
    assert changed(saved, settings({'use_dora': True})) == ['lora.use_dora']


def test_settings_of_the_architecture():
    linear = {'rope_parameters': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 10000.0}}
    names = [f'rope_parameters in config.json of base_model.{key}' for key in ('factor', 'rope_type')]
    assert changed(settings(), settings(model=linear)) == names
    text = "llm = dict(rope_parameters=dict(rope_type='linear', factor=8.0))"
    assert changed(settings(text='llm = dict()'), settings(model=linear, text=text))[0] == 'llm.rope_parameters.factor'
    assert changed(settings(), settings(model={'hidden_act': 'gelu'})) == ['hidden_act in config.json of base_model']
    assert not changed(settings(), settings(model={'attention_dropout': 0.1, 'eos_token_id': 7, 'use_cache': False}))


def test_options_are_compared_before_the_model_is_built():
    saved, text = settings(), "llm = dict(rope_parameters=dict(rope_type='linear', factor=8.0), head_dim=128)"
    current = ModelSettings('base', saved.adapter, {}, stored_sections(text, ('llm', 'quantization')))
    assert changed(saved, current) == ['llm.rope_parameters.factor', 'llm.rope_parameters.rope_type']
    same = "llm = dict(rope_parameters=dict(rope_type='default', rope_theta=10000.0), attn_implementation='eager')"
    assert not changed(saved, ModelSettings('base', saved.adapter, {}, stored_sections(same, ('llm', 'quantization'))))


FOUR_BITS = """
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

llm = dict(type=AutoModelForCausalLM.from_pretrained, attn_implementation='sdpa')

quantization = dict(type=BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type='nf4')
"""


@pytest.mark.parametrize(
    ('before', 'after', 'names'),
    [
        ("'nf4'", "'fp4'", ['quantization.bnb_4bit_quant_type']),
        (", bnb_4bit_quant_type='nf4'", '', ['quantization.bnb_4bit_quant_type']),
        ('dict(type=BitsAndBytesConfig', "None  # dict('", ['quantization']),
        ("'sdpa'", "'sdpa', revision='v2'", ['llm.revision']),
        ("'sdpa'", "'eager'", []),
        ("'nf4'", "'nf4', bnb_4bit_use_double_quant=False", []),
        ("'nf4'", "'nf4', bnb_4bit_compute_dtype='float16'", []),
        ('type=BitsAndBytesConfig', "type='transformers.BitsAndBytesConfig'", []),
    ],
)
def test_sections_quantization_and_llm(before, after, names):
    after_text = FOUR_BITS.replace(before, after)
    assert after_text != FOUR_BITS
    assert changed(settings(text=FOUR_BITS), settings(text=after_text)) == names


def meta(saved):
    adapter, model = json.dumps(saved.adapter), json.dumps(saved.model)
    export = dict(base_model=saved.base, adapter_config=adapter, model_config=model)
    return dict(export=export, config=FOUR_BITS)


def test_built_model_is_compared_with_all_settings():
    """Removed RoPE scaling and removed target modules are not visible in the config."""
    scaled = {'rope_parameters': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 10000.0}}
    saved, current = meta(settings(model=scaled)), meta(settings({'target_modules': ['k_proj']}))
    with pytest.raises(CheckpointError) as refused:
        check_built(Path('run/iter_1.pth'), saved, {'a'}, current, {'b'})
    for what in ('rope_parameters', "lora.target_modules: was ['q_proj'], now ['k_proj']"):
        assert what in str(refused.value)
    same = meta(settings({'target_modules': '.*q_proj'}, model=scaled))
    check_built(Path('run/iter_1.pth'), saved, {'a'}, same, {'a'})  # another spelling of the same modules


def test_a_stored_config_is_read_without_running_it(tmp_path):
    text = f"open({str(tmp_path / 'ran')!r}, 'w')\nlora = dict(r=-4, x=open({str(tmp_path / 'ran')!r}, 'w'))"
    assert stored_sections(text, ('lora',))['lora']['r'] == -4 and not (tmp_path / 'ran').exists()
    assert stored_sections('this is no config', ('lora',)) == {}


def test_base_fingerprint_depends_only_on_the_weights(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    fingerprint = weight_fingerprint(str(tiny_model))
    llm = AutoModelForCausalLM.from_pretrained(tiny_model)
    llm.save_pretrained(tmp_path / 'split', max_shard_size='100KB')
    assert len(list((tmp_path / 'split').glob('*.safetensors'))) > 1
    assert fingerprint and weight_fingerprint(str(tmp_path / 'split')) == fingerprint
    state = load_file(tiny_model / 'model.safetensors')
    state['model.norm.weight'] = state['model.norm.weight'] + 1
    (tmp_path / 'other').mkdir()
    save_file(state, tmp_path / 'other' / 'model.safetensors')
    assert weight_fingerprint(str(tmp_path / 'other')) not in (fingerprint, '')
    torch.save(load_file(tiny_model / 'model.safetensors'), tmp_path / 'split' / 'pytorch_model.bin')
    for path in tmp_path.glob('split/model*'):
        path.unlink()
    assert weight_fingerprint(str(tmp_path / 'split')) == fingerprint
    assert weight_fingerprint(str(tmp_path / 'nothing')) == weight_fingerprint('nobody/nothing') == ''
