"""Damaged or wrong model folders: every command refuses them with a single sentence and leaves no files behind."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtune.errors import ModelError
from xtune.inference.load import load_for_inference
from xtune.inference.tokenizer import load_tokenizer_of
from xtune.models.loading.config_json import check_config

CPU = torch.device('cpu')
UP = 'model.layers.1.mlp.up_proj.weight'


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy of the tiny model."""
    return shutil.copytree(tiny_model, tmp_path / 'model')


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def config(**values):
    def change(folder):
        path = folder / 'config.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def weights(change):
    def rewrite(folder):
        state = load_file(folder / 'model.safetensors')
        save_file(change(state), folder / 'model.safetensors', metadata={'format': 'pt'})

    return rewrite


def as_bin(content):
    def change(folder):
        state = load_file(folder / 'model.safetensors')
        (folder / 'model.safetensors').unlink()
        torch.save(content(state), folder / 'pytorch_model.bin')

    return change


def renamed(folder):
    (folder / 'model.safetensors').rename(folder / 'model-00001-of-00002.safetensors')


def only_gguf(folder):
    (folder / 'model.safetensors').unlink()
    (folder / 'model-Q4_K_M.gguf').write_bytes(b'GGUF')


class Code:
    def __reduce__(self):
        return os.system, ('touch EVIL',)


POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n'
INDEX = 'model.safetensors.index.json'
FOLDERS = {
    'a model type that is a list': config(model_type=['llama']),
    'an unknown model type with code': config(model_type='lama', auto_map={}),
    'a number of heads that does not divide': config(num_attention_heads=5),
    'a number as text': config(rms_norm_eps='small'),
    'no key heads': config(num_key_value_heads=0),
    'more active experts than experts': config(model_type='qwen3_moe', num_experts=4, num_experts_per_tok=6),
    'the same of Mixtral': config(model_type='mixtral', num_local_experts=2, num_experts_per_tok=3),
    'quantization as text': config(quantization_config='gptq'),
    'another damaged file': write('generation_config.json', '{'),
    'a stop token as text': write('generation_config.json', '{"eos_token_id": "x"}'),
    'tokenizer settings as list': write('tokenizer_config.json', '[]'),
    'an empty index': write(INDEX, '{"weight_map": []}'),
    'an index of numbers': write(INDEX, '{"weight_map": {"a": 5}}'),
    'a missing index': renamed,
    'a git lfs pointer': write('model.safetensors', POINTER),
    'only GGUF': only_gguf,
    'a list of tensors': as_bin(lambda state: [torch.ones(2)]),
    'a training state': as_bin(lambda state: {'state_dict': state}),
    'code in a pickle': as_bin(lambda state: state | {'x': Code()}),
    'integer weights': weights(lambda s: {k: t.to(torch.int8) for k, t in s.items()}),
    'another shape': weights(lambda s: s | {UP: torch.ones(3, 5)}),
    'an additional layer': weights(lambda s: s | {UP.replace('1', '2'): s[UP].clone()}),
}


def test_messages_about_folders(golden, tiny_model, tmp_path):
    texts = {}
    for case, change in FOLDERS.items():
        folder = shutil.copytree(tiny_model, tmp_path / 'model')
        change(folder)
        with pytest.raises(ModelError) as caught:
            load_for_inference(str(folder), None, CPU, torch.float32)
        texts[case] = caught.value
        shutil.rmtree(folder)
    golden('model.damaged_folders', texts)


@pytest.mark.parametrize('change', FOLDERS.values(), ids=FOLDERS)
def test_every_command_refuses_the_folder_and_leaves_nothing(change, model, xtune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('builtins.input', None)
    change(model)
    code, out, err = xtune('chat', model, '--prompt', 'x')
    assert code == 2 and err.count('\n') == 1 and not out, err
    code, _, err = xtune('convert', 'legacy', model, tmp_path / 'new')
    assert code == 2 and err.startswith('error: ')
    assert not list(tmp_path.glob('*new*')) and not (tmp_path / 'EVIL').exists()


def test_a_single_expert_may_be_active_twice(tmp_path):
    values = dict(model_type='jamba', num_experts=1, num_experts_per_tok=2)
    (tmp_path / 'config.json').write_text(json.dumps(values))
    check_config(tmp_path, values, allow_remote_code=False)


def test_weights_outside_the_language_model_and_buffers_are_accepted(model):
    extra = {'vision.weight': torch.ones(2), 'model.layers.0.self_attn.rotary_emb.inv_freq': torch.ones(4)}
    weights(lambda state: state | extra)(model)
    load_for_inference(str(model), None, CPU, torch.float32)


def test_missing_weights_are_refused_when_quantizing(model, make_config, xtune):
    weights(lambda state: {key: tensor for key, tensor in state.items() if key != UP})(model)
    with pytest.raises(ModelError, match=UP):
        load_for_inference(str(model), None, CPU, torch.float32, bits=4)
    code, _, err = xtune('train', make_config('qlora', base_model=str(model)))
    assert code == 2 and UP in err


def test_training_refuses_a_folder_without_a_tokenizer(model, make_config, xtune, golden):
    for file in model.glob('tokenizer*'):
        file.unlink()
    code, _, err = xtune('train', make_config(base_model=str(model)))
    assert code == 2 and 'tokenizer.json' in err
    golden('model.no_tokenizer', err)


def test_a_tokenizer_without_its_vocabulary(model, golden):
    (model / 'tokenizer.json').unlink()
    with pytest.raises(ModelError, match='tokenizer.json') as caught:
        load_tokenizer_of(str(model))
    golden('model.no_vocabulary', caught.value)


def test_chat_refuses_ids_without_a_row(model, xtune, golden):
    config(vocab_size=300)(model)
    weights(lambda s: s | {'model.embed_tokens.weight': s['model.embed_tokens.weight'][:300].contiguous()})(model)
    code, _, err = xtune('chat', model, '--prompt', 'What is the capital of France?')
    assert code == 2 and 'vocab_size' in err and '300' in err
    golden('model.token_ids_without_embeddings', err)


@pytest.mark.parametrize('command', (('chat',), ('convert', 'merge'), ('convert', 'legacy')))
@pytest.mark.parametrize('name', ('someone/nothing', 'nothing'))
def test_hub_names_without_a_connection_say_so_at_once(command, name, xtune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'nothing_else').mkdir()
    (tmp_path / 'adapter').mkdir()
    (tmp_path / 'adapter' / 'adapter_config.json').write_text('{}')
    save_file({'a': torch.ones(1)}, tmp_path / 'adapter' / 'adapter_model.safetensors')
    more = ('--prompt', 'x') if command == ('chat',) else ('adapter', 'new') if 'merge' in command else ('new',)
    code, _, err = xtune(*command, name, *more)
    assert code == 2 and name in err and 'HF_HUB_OFFLINE' in err
    assert ('`nothing_else`' in err) == (name == 'nothing')


def test_a_server_that_answers_is_no_missing_connection(tmp_path):
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    from xtune.models.legacy.hub import connection_error

    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    server = HTTPServer(('127.0.0.1', 0), Refusing)
    Thread(target=server.handle_request, daemon=True).start()
    assert connection_error(f'http://127.0.0.1:{server.server_port}') == ''
    server.server_close()
    assert 'refused' in connection_error(f'http://127.0.0.1:{server.server_port}')


ADAPTERS = {
    'missing': lambda state: dict(list(state.items())[:2]),
    'unexpected': lambda s: s | {'base_model.model.model.layers.7.x': torch.ones(2)},
    'NaN': lambda state: {key: tensor * float('nan') for key, tensor in state.items()},
}


def test_incomplete_adapters_are_refused(tiny_model, xtune, golden, tmp_path):
    from peft import LoraConfig, get_peft_model

    llm = load_for_inference(str(tiny_model), None, CPU, torch.float32)
    get_peft_model(llm, LoraConfig(target_modules=['q_proj'], r=2)).save_pretrained(tmp_path / 'adapter')
    load_for_inference(str(tiny_model), str(tmp_path / 'adapter'), CPU, torch.float32)
    file = tmp_path / 'adapter' / 'adapter_model.safetensors'
    state, texts = load_file(file), {}
    for case, change in ADAPTERS.items():
        save_file(change(state), file)
        with pytest.raises(ModelError) as caught:
            load_for_inference(str(tiny_model), str(tmp_path / 'adapter'), CPU, torch.float32)
        texts[case] = caught.value
        code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'new')
        assert code == 2 and err.count('\n') == 1 and not list(tmp_path.glob('*new*'))
    golden('model.incomplete_adapters', texts)
