"""The variant of a 2023 remote-code checkpoint: detected, requested if ambiguous, refused if not supported."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtune.errors import ModelError
from xtune.models.legacy.families import open_legacy
from xtune.models.legacy.load import load_legacy
from xtune.models.legacy.variants import variant_of
from xtune.models.loading.folder_checks import check_model_folder

FILES = Path(__file__).parent / 'files'
ALIBI = dict(model_type='baichuan', architectures=['BaichuanForCausalLM'], model_max_length=4096)
ROTARY = ALIBI | dict(max_position_embeddings=4096)
FIRST_7B = dict(model_type='baichuan', architectures=['BaiChuanForCausalLM'], max_position_embeddings=4096)
GLM = dict(model_type='chatglm', multi_query_attention=True)
NAMED = dict(tokenizer_class='BaichuanTokenizer')

DETECTED = [
    ('baichuan_7b', FIRST_7B | dict(vocab_size=64000)),
    ('baichuan_7b', FIRST_7B | dict(vocab_size=64100)),
    ('baichuan2_7b', ROTARY | dict(vocab_size=125696)),
    ('baichuan2_7b', ROTARY | NAMED | dict(vocab_size=125700)),
    ('baichuan_13b', ALIBI | dict(vocab_size=64000)),
    ('baichuan2_13b', ALIBI | dict(vocab_size=125696)),
    ('baichuan2_13b', ALIBI | NAMED | dict(vocab_size=125700)),
    ('internlm', dict(model_type='internlm')),
    ('qwen', dict(model_type='qwen')),
    ('chatglm2', GLM | dict(_name_or_path='THUDM/chatglm2-6b')),
    ('chatglm3', GLM | dict(_name_or_path='/models/ChatGLM3_6B')),
]


@pytest.mark.parametrize('variant, values', DETECTED)
def test_variants_are_detected(variant, values, tmp_path):
    assert variant_of(tmp_path, values) == variant


AMBIGUOUS = [
    (ROTARY | dict(vocab_size=64000), 'baichuan_7b'),
    (ROTARY | dict(vocab_size=64100), 'vocab_size=64100'),
    (ALIBI | NAMED | dict(vocab_size=64000), 'baichuan_7b'),
    (FIRST_7B | NAMED, 'baichuan_7b'),
    (dict(model_type='baichuan', vocab_size=64000), 'baichuan_7b'),
    (GLM, 'chatglm2 or chatglm3'),
    (GLM | dict(_name_or_path='THUDM/chatglm3-6b-32k', rope_ratio=50), 'rope_ratio=50'),
]


@pytest.mark.parametrize('values, message', AMBIGUOUS)
def test_an_ambiguous_variant_is_requested(values, message, tmp_path):
    with pytest.raises(ModelError, match=message) as error:
        variant_of(tmp_path, values)
    assert 'llm.variant=NAME' in str(error.value) and '--variant NAME' in str(error.value)
    wanted = 'baichuan2_7b' if values['model_type'] == 'baichuan' else 'chatglm2'
    assert variant_of(tmp_path, values, wanted) == wanted


def test_tokenizer_code_distinguishes_the_generations_of_chatglm_and_is_not_run(tmp_path):
    (tmp_path / 'tokenization_chatglm.py').write_text("raise SystemExit\ntokens = ['<|observation|>']\n")
    assert variant_of(tmp_path, GLM) == 'chatglm3'
    (tmp_path / 'tokenization_chatglm.py').write_text('raise SystemExit\n')
    assert variant_of(tmp_path, GLM) == 'chatglm2'


def test_a_wrong_variant_is_refused_with_close_names(tmp_path):
    with pytest.raises(ModelError, match='did you mean `baichuan2_7b`'):
        variant_of(tmp_path, ALIBI, 'baichuan2-7b')
    with pytest.raises(ModelError, match='`internlm`.*variant qwen'):
        variant_of(tmp_path, dict(model_type='internlm'), 'qwen')


UNSUPPORTED = [
    ('chatglm3_6b', dict(quantization_bit=4)),
    ('qwen_7b', dict(quantization_config=dict(quant_method='gptq'))),
    ('chatglm3_6b', dict(position_encoding_2d=True)),
    ('chatglm3_6b', dict(multi_query_attention=None)),
    ('chatglm3_6b', dict(pre_seq_len=128)),
    ('chatglm3_6b', dict(rmsnorm=False)),
    ('chatglm3_6b', dict(multi_query_attention=False)),
    ('chatglm3_6b', dict(add_bias_linear=True)),
    ('qwen_7b', dict(hidden_size=None, n_embd=64, n_layer=2)),
    ('qwen_7b', dict(rotary_pct=0.5)),
    ('qwen_7b', dict(no_bias=False)),
    ('qwen_7b', dict(intermediate_size=351)),
    ('internlm_7b', dict(rotary=dict(type='yarn'))),
    ('internlm_7b', dict(num_hidden_layers=-2)),
    ('internlm_7b', dict(hidden_size='64')),
    ('internlm_7b', dict(num_hidden_layers=None)),
    ('internlm_7b', dict(num_attention_heads=5)),
    ('internlm_7b', dict(rms_norm_eps=0)),
    ('baichuan_7b', dict(hidden_size=72)),
    ('baichuan_7b', dict(hidden_act='silo')),
    ('baichuan_7b', dict(torch_dtype='float61')),
    ('chatglm3_6b', dict(kv_channels=18)),
    ('chatglm3_6b', dict(apply_residual_connection_post_layernorm=True)),
]


def test_unsupported_and_damaged_configs_are_refused(checkpoint, golden):
    messages = {}
    for number, (name, changes) in enumerate(UNSUPPORTED):

        def change(values, changes=changes):
            values.update(changes)
            for key in [key for key, value in values.items() if value is None]:
                del values[key]

        with pytest.raises(ModelError) as caught:
            load_legacy(checkpoint(name, f'model_{number}', change_config=change))
        messages[f'{name} {changes}'] = re.sub(r'/model_\d+', '/model', str(caught.value))
    golden('model.legacy_configs', messages)


def test_missing_unknown_and_damaged_weights_are_named(checkpoint):
    lost = 'model.layers.1.self_attn.W_pack.weight'
    folder = checkpoint('baichuan_7b', 'a', change_weights=lambda state: {k: v for k, v in state.items() if k != lost})
    with pytest.raises(ModelError, match=f'lacks {lost}'):
        load_legacy(folder)
    folder = checkpoint('baichuan_7b', 'b', change_weights=lambda state: state | {'model.more.weight': torch.ones(2)})
    with pytest.raises(ModelError, match='model.more.weight'):
        load_legacy(folder)
    for i, bad in enumerate((float('nan'), float('inf'))):
        folder = checkpoint(
            'baichuan_7b', f'c{i}', change_weights=lambda state, bad=bad: state['model.norm.weight'].__setitem__(3, bad)
        )
        with pytest.raises(ModelError, match='model.norm.weight contains 1 NaN or infinite'):
            load_legacy(folder)


def test_missing_and_truncated_files_are_named(checkpoint):
    folder = checkpoint('baichuan_7b')
    state = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').unlink()
    names = sorted(state)
    parts = {'model-00001-of-00002.safetensors': names[:9], 'model-00002-of-00002.safetensors': names[9:]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, folder / file)
    place = {name: file for file, part in parts.items() for name in part}
    index = folder / 'model.safetensors.index.json'
    index.write_text(json.dumps(dict(weight_map=place)))
    check_model_folder(str(folder))

    index.write_text(json.dumps(dict(weight_map=place | {'lm_head.bias': 'model-00001-of-00002.safetensors'})))
    with pytest.raises(ModelError, match='lacks lm_head.bias.*model-00001'):
        check_model_folder(str(folder))
    index.write_text(json.dumps(dict(weight_map=place)))
    second = folder / 'model-00002-of-00002.safetensors'
    second.write_bytes(second.read_bytes()[:5000])
    with pytest.raises(ModelError, match='model-00002-of-00002.safetensors cannot be loaded'):
        check_model_folder(str(folder))
    second.unlink()
    with pytest.raises(ModelError, match='1 of its 2 weight files.*model-00002-of-00002.safetensors'):
        check_model_folder(str(folder))
    index.write_text('{')
    with pytest.raises(ModelError, match='index.json is damaged'):
        check_model_folder(str(folder))


def test_config_that_is_no_json_object(checkpoint):
    folder = checkpoint('internlm_7b')
    for text, message in (('{"model_type":', 'is damaged'), ('[1]', 'JSON object')):
        (folder / 'config.json').write_text(text)
        with pytest.raises(ModelError, match=message):
            check_model_folder(str(folder))


def test_notes_before_training():
    from xtune.models.legacy.load import training_notes

    assert open_legacy(FILES / 'qwen_7b').trained_length == 32
    assert not list(training_notes(FILES / 'qwen_7b', None, 32, False))
    [text] = training_notes(FILES / 'qwen_7b', None, 33, False)
    assert 'max_length 33 ' in text and ' 32;' in text
    [text] = training_notes(FILES / 'baichuan2_7b', None, 32, True)
    assert 'rows of lm_head' in text
