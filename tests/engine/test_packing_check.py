"""Packing is refused before data are prepared if the packed samples would not be isolated."""

from contextlib import nullcontext

import pytest
import torch
from small_models import small_model
from transformers import CONFIG_MAPPING

from xtune.config.strategy_traits import TRAITS
from xtune.engine import packing_check
from xtune.errors import ModelError
from xtune.tasks.sft import SupervisedFineTuning

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.fixture(scope='module')
def hybrid(tmp_path_factory, tokenizer):
    """A folder with a small Granite hybrid and SmolLM2's tokenizer."""
    folder = tmp_path_factory.mktemp('hybrid')
    model = small_model('GraniteMoeHybridForCausalLM', vocabulary=len(tokenizer), max_position_embeddings=512)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_packed_run_is_refused_before_data_are_prepared(hybrid, make_config, xtune):
    code, out, err = xtune('train', make_config('full', base_model=str(hybrid)))
    assert code != 0 and 'pack=False' in err and 'linear_attention' in err and 'Traceback' not in err
    assert 'packing' not in out  # nothing was prepared


def test_unpacked_run_trains(hybrid, make_config, xtune):
    options = {'pack': False, 'schedule.max_epochs': 1, 'schedule.max_steps': 2, 'activation_checkpointing': 'all'}
    code, out, err = xtune('train', make_config('lora', base_model=str(hybrid), **options))
    assert code == 0, err
    assert 'done' in out


@pytest.mark.slow
def test_plan_reports_the_refusal(hybrid, make_config, xtune):
    code, out, _ = xtune('plan', make_config('lora', base_model=str(hybrid)), '--memory', '24')
    assert code == 0 and 'pack=False' in ' '.join(out.split())


def early_refusal(config, device=CPU, attention=None):
    return packing_check.early_refusal(config, attention, device)


def test_only_certain_failures_are_refused_early(monkeypatch):
    bamba = CONFIG_MAPPING['bamba']()
    assert 'pack=False' in early_refusal(bamba)
    assert early_refusal(bamba, attention='flash_attention_2') is None
    assert early_refusal(CONFIG_MAPPING['llama']()) is None
    assert 'install' in early_refusal(bamba, CUDA)
    monkeypatch.setattr(packing_check, 'find_spec', lambda name: name)
    assert early_refusal(bamba, CUDA) is None  # the CUDA kernels may isolate samples
    assert early_refusal(bamba) is not None  # there are no such kernels on a CPU


@pytest.mark.parametrize('strategy', ['one_device', 'ddp', 'zero2', 'fsdp2', 'zero3'])
def test_check_runs_under_every_strategy(strategy):
    for name, fits in (('LlamaForCausalLM', True), ('Qwen3NextForCausalLM', False)):
        task = SupervisedFineTuning(small_model(name), torch.float32)
        with nullcontext() if fits else pytest.raises(ModelError, match='pack=False'):
            packing_check.check_packing(task, TRAITS[strategy])
        assert not task.boundaries


def test_model_without_a_small_copy_is_refused_if_its_weights_are_sharded(monkeypatch):
    monkeypatch.setattr(packing_check, 'small_copy', lambda *args: None)
    task = SupervisedFineTuning(small_model('LlamaForCausalLM'), torch.float32)
    with pytest.raises(ModelError, match='zero3'):
        packing_check.check_packing(task, TRAITS['zero3'])
