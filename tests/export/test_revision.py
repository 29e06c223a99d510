"""`xtune convert merge` into a base on the hub that has several revisions."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from xtune.export.merge import merge
from xtune.inference.load import load_for_inference

pytestmark = pytest.mark.integration

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
    ('requested', 'trained_on', 'old'), [(None, None, 0), ('old', None, 1), (None, 'old', 1), ('main', 'old', 0)]
)
def test_the_requested_revision_else_that_of_the_adapter(requested, trained_on, old, hub, adapter, tmp_path, capsys):
    name_base(adapter, base_model_name_or_path=NAME, revision=trained_on)
    report = merge(NAME, str(adapter), tmp_path / 'new', revision=requested)
    norm = load_file(tmp_path / 'new' / 'model.safetensors')['model.norm.weight']
    wanted = load_file(hub / 'snapshots' / ('ab'[old] * 40) / 'model.safetensors')['model.norm.weight']
    assert torch.equal(norm, wanted) and report['revision'] == (requested or trained_on)
    printed = capsys.readouterr()
    assert ('note: ' in printed.out and 'revision old' in printed.out) == (requested is None and trained_on is not None)
    assert ('not on main' in printed.err) == (requested == 'main')


def test_a_folder_has_no_revisions(tiny_model, adapter, xtune, tmp_path):
    code, _, err = xtune('convert', 'merge', tiny_model, adapter, tmp_path / 'new', '--revision', 'old')
    assert code == 2 and '--revision old' in err and not list(tmp_path.glob('*new*'))
