"""Writing the original layout restores names, shapes, types and bits of every tensor, and every other file."""

import json

import pytest
import torch
from safetensors.torch import load_file

from xtune.export.legacy_writer import open_for_original, write_original
from xtune.inference.load import load_for_inference
from xtune.models.legacy.load import file_dtype

NAMES = ('internlm_7b', 'baichuan2_7b', 'baichuan_13b', 'qwen_7b', 'chatglm3_6b')
CPU = torch.device('cpu')


def tied(values):
    values['tie_word_embeddings'] = True


def without_head(state):
    return {
        key: tensor for key, tensor in state.items() if key not in ('lm_head.weight', 'transformer.output_layer.weight')
    }


def as_bfloat16(state):
    return {key: tensor.bfloat16() for key, tensor in state.items()}


def head_twice(state):
    [embedding] = [key for key in state if key.split('.')[-2] in ('embed_tokens', 'wte', 'word_embeddings')]
    [head] = [key for key in state if key.split('.')[-2] in ('lm_head', 'output_layer')]
    state[head] = state[embedding].clone()


CHANGES = [(None, None), (None, as_bfloat16), (tied, without_head), (tied, head_twice)]


@pytest.mark.parametrize('change_config, change_weights', CHANGES)
@pytest.mark.parametrize('name', NAMES)
def test_original_layout_returns_every_tensor_as_it_came(name, change_config, change_weights, with_tokenizer, tmp_path):
    base = with_tokenizer(name, change_config=change_config, change_weights=change_weights)
    model = load_for_inference(str(base), None, CPU, file_dtype(base))
    (tmp_path / 'back').mkdir()
    write_original(open_for_original(base, 'base', None), model.state_dict(), tmp_path / 'back', 10**9)
    before = {k: v for k, v in load_file(base / 'model.safetensors').items() if not k.endswith('inv_freq')}
    after = load_file(tmp_path / 'back' / 'model.safetensors')
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    dtype = str(file_dtype(base)).removeprefix('torch.')
    assert {tensor.dtype for tensor in after.values()} == {file_dtype(base)}
    config = json.loads((base / 'config.json').read_text()) | dict(torch_dtype=dtype)
    assert json.loads((tmp_path / 'back' / 'config.json').read_text()) == config
    assert {path.name for path in base.iterdir()} == {path.name for path in (tmp_path / 'back').iterdir()}


def test_merge_keeps_the_type_of_the_files_where_config_json_names_another(with_tokenizer, xtune, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = with_tokenizer('internlm_7b')  # float32 under the name of float16
    llm = load_for_inference(str(base), None, CPU, torch.float32)
    get_peft_model(llm, LoraConfig(target_modules=['q_proj'], r=2)).save_pretrained(tmp_path / 'adapter')
    code, _, err = xtune('convert', 'merge', base, tmp_path / 'adapter', tmp_path / 'new', '--layout', 'original')
    assert code == 0, err
    before, after = (load_file(folder / 'model.safetensors') for folder in (base, tmp_path / 'new'))
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in after)
