"""Incomplete or inconsistent model folders are refused, with the name of the problem."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from xtune.errors import ModelError
from xtune.export.merge import merge
from xtune.inference.load import load_for_inference
from xtune.models.loading.folder_checks import check_model_folder, check_vocabulary

CPU = torch.device('cpu')


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy of the tiny model."""
    return shutil.copytree(tiny_model, tmp_path / 'model')


def change(folder, config=None, weights=None):
    path = folder / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    if weights:
        state = load_file(folder / 'model.safetensors')
        weights(state)
        save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})


CONFIGS = [
    (dict(model_type='lama'), 'did you mean `llama`'),
    (dict(model_type='intrnlm'), 'did you mean `internlm`'),
    (dict(model_type=None), 'has no `model_type`'),
    (dict(num_hidden_layers=-1), '`num_hidden_layers` .*got -1'),
    (dict(hidden_size='32'), "`hidden_size` .*got '32'"),
]


@pytest.mark.parametrize('values, message', CONFIGS)
def test_damaged_configs_are_refused(values, message, model, xtune):
    change(model, values)
    with pytest.raises(ModelError, match=message):
        check_model_folder(str(model))
    code, _, err = xtune('chat', model, '--prompt', 'x')
    assert code == 2 and 'Traceback' not in err


@pytest.mark.parametrize('tied', (True, False))
def test_missing_weights_are_not_initialized_at_random(tied, model):
    change(model, dict(tie_word_embeddings=tied), lambda state: state.pop('model.layers.1.mlp.up_proj.weight'))
    with pytest.raises(ModelError, match=r'lack .*model.layers.1.mlp.up_proj.weight'):
        load_for_inference(str(model), None, CPU, None)


def test_a_missing_lm_head_is_named(model, make_config, xtune):
    load_for_inference(str(model), None, CPU, None)
    change(model, dict(tie_word_embeddings=False))
    with pytest.raises(ModelError, match='lack lm_head.weight'):
        load_for_inference(str(model), None, CPU, None)
    code, _, err = xtune('train', make_config(base_model=str(model)))
    assert code == 2 and 'lack lm_head.weight' in err


def test_nan_weights_are_named(model):
    change(model, weights=lambda state: state['model.norm.weight'].__setitem__(0, float('nan')))
    with pytest.raises(ModelError, match='model.norm.weight contains 1 NaN'):
        load_for_inference(str(model), None, CPU, None)


@pytest.mark.parametrize('nested', [True, False])
def test_nan_in_a_weight_that_is_quantized_while_loading_is_named(nested, model, make_config, xtune):
    change(model, weights=lambda state: state['model.layers.1.mlp.up_proj.weight'][3].__setitem__(5, float('nan')))
    options = {'base_model': str(model), 'quantization.bnb_4bit_use_double_quant': nested}
    code, _, err = xtune('train', make_config('qlora', **options))
    assert code == 2 and 'model.layers.1.mlp.up_proj.weight' in err and 'NaN' in err


def test_an_unknown_quantization_method_is_named(model):
    change(model, dict(quantization_config=dict(quant_method='gptk')))
    with pytest.raises(ModelError, match='`gptk`.*did you mean `gptq`'):
        load_for_inference(str(model), None, CPU, None)


def test_a_base_stored_in_4_bits_generates_and_is_not_merged_into(model, tmp_path):
    settings = BitsAndBytesConfig(load_in_4bit=True)
    AutoModelForCausalLM.from_pretrained(model, quantization_config=settings).save_pretrained(tmp_path / 'stored')
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / 'stored')
    llm = load_for_inference(str(tmp_path / 'stored'), None, CPU, None)
    get_peft_model(llm, LoraConfig(target_modules=['q_proj'])).save_pretrained(tmp_path / 'adapter')
    with pytest.raises(ModelError, match='stored in bitsandbytes .*--adapter'):
        merge(str(tmp_path / 'stored'), str(tmp_path / 'adapter'), tmp_path / 'merged')
    assert not (tmp_path / 'merged').exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused_before_the_model_loads(model, make_config, xtune, tokenizer):
    change(model, dict(vocab_size=len(tokenizer) - 1))
    with pytest.raises(ModelError, match=f'ids up to {len(tokenizer) - 1}, its embedding'):
        check_vocabulary(str(model), len(tokenizer) - 1)
    code, _, err = xtune('train', make_config(base_model=str(model)))
    assert code == 2 and f'ids up to {len(tokenizer) - 1}' in err
