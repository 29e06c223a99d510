"""`xtune convert merge` into a base on the hub of which there are several revisions."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from xtune.export.merge import merge
from xtune.inference.load import load_for_inference

NAME = 'someone/model'


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch):
    """A cache of the hub with a model at the revisions `main` and `old`, of which `old` has another norm."""
    place = tmp_path / 'hub' / 'models--someone--model'
    for revision, commit in (('main', 'a' * 40), ('old', 'b' * 40)):
        folder = shutil.copytree(tiny_model, place / 'snapshots' / commit)
        (place / 'refs').mkdir(exist_ok=True)
        (place / 'refs' / revision).write_text(commit)
    state = load_file(folder / 'model.safetensors')
    state['model.norm.weight'] += 1
    save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    return place


@pytest.fixture
def adapter(tiny_model, tmp_path):
    llm = load_for_inference(str(tiny_model), None, torch.device('cpu'), torch.float32)
    get_peft_model(llm, LoraConfig(target_modules=['q_proj'], r=2)).save_pretrained(tmp_path / 'adapter')
    return tmp_path / 'adapter'


def name_base(adapter, **values):
    path = adapter / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ('given', 'named', 'old'), [(None, None, 0), ('old', None, 1), (None, 'old', 1), ('main', 'old', 0)]
)
def test_the_revision_that_is_given_else_that_of_the_adapter(given, named, old, hub, adapter, tmp_path, capsys):
    name_base(adapter, base_model_name_or_path=NAME, revision=named)
    report = merge(NAME, str(adapter), tmp_path / 'new', revision=given)
    norm = load_file(tmp_path / 'new' / 'model.safetensors')['model.norm.weight']
    wanted = load_file(hub / 'snapshots' / ('ab'[old] * 40) / 'model.safetensors')['model.norm.weight']
    assert torch.equal(norm, wanted) and report['revision'] == (given or named)
    said = capsys.readouterr()
    assert ('which is taken' in said.out) == (given is None and named is not None)
    assert ('not on main' in said.err) == (given == 'main')


def test_a_folder_has_no_revisions(tiny_model, adapter, xtune, tmp_path):
    code, _, err = xtune('convert', 'merge', tiny_model, adapter, tmp_path / 'new', '--revision', 'old')
    assert code == 2 and '--revision old is for a model on the hub' in err and not list(tmp_path.glob('*new*'))
