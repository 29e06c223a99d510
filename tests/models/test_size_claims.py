"""Refuse weight files with code or missing bytes, and configs of larger models than their weights; run no code."""

import json
import os
import shutil
import zipfile

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from xtune.engine import checkpoint_io
from xtune.errors import CheckpointError, ModelError
from xtune.inference.load import load_for_inference
from xtune.models.loading.folder_checks import check_adapter_folder, check_model_folder

CPU = torch.device('cpu')


class Code:
    def __reduce__(self):
        return os.system, ('touch EVIL',)


def is_no_zip(path):
    path.write_bytes(b'anything but weights' * 20)


def is_cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def has_small_storage(path):
    """Keep the shapes and cut each storage to four bytes."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, 'w') as new:
        for name, content in parts.items():
            new.writestr(name, content[:4] if '/data/' in name else content)


def has_code(path):
    torch.save(torch.load(path, weights_only=True) | {'x': Code()}, path)


def has_an_unknown_class(path):
    torch.save({'x': CPU, 'y': zipfile.ZipInfo('a')}, path)


def has_a_broken_pickle(path):
    with zipfile.ZipFile(path, 'a') as old:
        names = old.namelist()
    with zipfile.ZipFile(path, 'w') as new:
        for name in names:
            new.writestr(name, b'\x80\x02}(K\x01' if name.endswith('data.pkl') else b'1')


DAMAGES = (is_no_zip, is_cut, has_small_storage, has_code, has_an_unknown_class, has_a_broken_pickle)


@pytest.fixture(scope='module')
def complete_adapter(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp('adapter')
    llm = load_for_inference(str(tiny_model), None, CPU, torch.float32)
    get_peft_model(llm, LoraConfig(target_modules=['q_proj'], r=4)).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(complete_adapter, tmp_path):
    return shutil.copytree(complete_adapter, tmp_path / 'adapter')


@pytest.fixture
def as_bin(adapter):
    """The adapter with its weights in adapter_model.bin."""
    torch.save(load_file(adapter / 'adapter_model.safetensors'), adapter / 'adapter_model.bin')
    (adapter / 'adapter_model.safetensors').unlink()
    return adapter


def changed(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_bin_that_is_damaged_or_runs_code(damage, as_bin, tiny_model, xtune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_adapter_folder(str(as_bin))
    damage(as_bin / 'adapter_model.bin')
    for command in (('convert', 'merge', tiny_model, as_bin, 'new'), ('chat', tiny_model, '--adapter', as_bin)):
        code, _, err = xtune(*command)
        assert code == 2 and err.count('\n') == 1 and 'adapter_model.bin' in err, err
        assert ('it contains code (' in err) == (damage in (has_code, has_an_unknown_class)), err
    model = shutil.copytree(tiny_model, tmp_path / 'model')
    (model / 'model.safetensors').unlink()
    shutil.copy(as_bin / 'adapter_model.bin', model / 'pytorch_model.bin')
    for command in (('chat', model), ('convert', 'split', model, 'new')):
        code, _, err = xtune(*command)
        assert code == 2 and err.count('\n') == 1 and 'pytorch_model.bin' in err, err
    assert not list(tmp_path.glob('*new*')) and not (tmp_path / 'EVIL').exists()


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_checkpoint_that_is_damaged_or_runs_code(damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'iter_1.pth'
    torch.save({'state_dict': {'w': torch.ones(400)}, 'meta': {'export': {}}}, path)
    assert checkpoint_io.load(path)
    damage(path)
    with pytest.raises(CheckpointError, match='iter_1.pth (is damaged|was refused)'):
        checkpoint_io.load(path)
    assert not (tmp_path / 'EVIL').exists()


def test_meta_of_another_kind_is_no_checkpoint(tmp_path):
    torch.save({'state_dict': {}, 'meta': 3}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='a.pth'):
        checkpoint_io.load(tmp_path / 'a.pth')


def test_load_from_such_an_adapter(as_bin, make_config, xtune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    has_code(as_bin / 'adapter_model.bin')
    code, _, err = xtune('train', make_config(), '--cfg-options', f'load_from={as_bin}')
    assert code == 2 and 'load_from=' in err and 'adapter_model.bin' in err and 'posix.system' in err, err
    assert not (tmp_path / 'EVIL').exists()


def test_a_header_that_claims_more_than_the_file(adapter, tiny_model):
    path = adapter / 'adapter_model.safetensors'
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match='adapter_model.safetensors cannot be loaded'):
        check_adapter_folder(str(adapter))


CLAIMS = (
    dict(vocab_size=10**9),
    dict(num_hidden_layers=100_000_000),
    dict(hidden_size=10**7),
    dict(intermediate_size=10**9),
    dict(model_type='mixtral', num_local_experts=10**7),
    dict(num_attention_heads=10**7, head_dim=64),
    dict(text_config=dict(vocab_size=10**9)),
    dict(vision_config=dict(hidden_size=10**7)),
    dict(model_type='internlm', num_hidden_layers=100_000_000),
    dict(vocab_size=10**10, quantization_config=dict(quant_method='gptq', bits=4)),
)


@pytest.mark.parametrize('values', CLAIMS, ids=lambda values: max(values, key=lambda key: str(values[key])))
def test_sizes_beyond_the_weights(values, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / 'model')
    changed(model / 'config.json', **values)
    for weights in (True, False):  # train needs weights; data preparation, plan and pth_to_hf do not
        with pytest.raises(ModelError, match=r'config.json .* [\d,]+ elements'):
            check_model_folder(str(model), weights=weights)


def test_commands_refuse_sizes_beyond_the_weights(tiny_model, adapter, make_config, xtune, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / 'model')
    config = make_config()
    changed(model / 'config.json', vocab_size=10**9)
    options = '--cfg-options', f'base_model={model}'
    commands = ('train', config, *options), ('plan', config, *options), ('chat', model, '--prompt', 'x')
    for command in (*commands, ('convert', 'merge', model, adapter, tmp_path / 'new')):
        code, _, err = xtune(*command)
        assert code == 2 and err.count('\n') == 1 and 'has vocab_size=1000000000' in err, (command, err)


def test_sizes_of_removed_encoders_and_of_rope_positions_are_accepted(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / 'model')
    changed(model / 'config.json', vision_config=dict(hidden_size=1000), max_position_embeddings=10**7)
    check_model_folder(str(model))


RANKS = (
    (dict(r=10**9), 'r=1000000000'),
    (dict(r=5), 'r=5'),
    (dict(rank_pattern={'q_proj': 10**9}), 'rank_pattern q_proj=1000000000'),
    (dict(peft_type='LOHA', r=10**9), 'r=1000000000'),
)


@pytest.mark.parametrize('values, option', RANKS, ids=[option for _, option in RANKS])
def test_ranks_beyond_the_weights(values, option, adapter):
    changed(adapter / 'adapter_config.json', **values)
    with pytest.raises(ModelError, match=f'adapter_config.json has {option}, .*adapter_model.safetensors'):
        check_adapter_folder(str(adapter))


def test_a_pattern_may_leave_the_general_rank_unused(adapter):
    changed(adapter / 'adapter_config.json', r=64, rank_pattern={'q_proj': 4})
    assert check_adapter_folder(str(adapter))['r'] == 64
