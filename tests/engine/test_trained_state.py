"""Checkpoints contain every tensor of the model files; an adapter that cannot be saved stops the run at the start."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from xtune.engine.strategies import Replicated
from xtune.engine.trained_state import TrainedState
from xtune.tasks.sft import SupervisedFineTuning

SMALL = dict(
    hidden_size=16,
    intermediate_size=32,
    moe_intermediate_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    first_k_dense_replace=1,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    n_shared_experts=1,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_rope_head_dim=4,
    qk_nope_head_dim=4,
    v_head_dim=8,
    global_head_dim=8,
    num_kv_shared_layers=0,
    hidden_size_per_layer_input=0,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
)


@pytest.fixture(scope='module')
def small_model(tmp_path_factory, tokenizer):
    """Return a function that writes a small random model of a type, with buffers that differ from a new model's."""

    def make(model_type):
        folder = tmp_path_factory.mktemp(model_type)
        config = AutoConfig.for_model(model_type)
        sizes = {key: value for key, value in SMALL.items() if hasattr(config, key)}
        config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **sizes)
        torch.manual_seed(0)
        llm = AutoModelForCausalLM.from_config(config)
        for name, buffer in llm.named_buffers():
            if name in llm.state_dict():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
        llm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize(
    ('model_type', 'buffer'),
    [
        ('glm4_moe', 'e_score_correction_bias'),
        pytest.param('deepseek_v3', 'e_score_correction_bias', marks=pytest.mark.slow),
        pytest.param('gemma4_text', 'layer_scalar', marks=pytest.mark.slow),
    ],
)
def test_full_exports_keep_persistent_buffers(model_type, buffer, small_model, make_config, xtune, tmp_path):
    base = small_model(model_type)
    options = {
        'base_model': str(base),
        'schedule.max_steps': 2,
        'schedule.gradient_accumulation_steps': 1,
        'max_length': 64,
    }
    config = make_config('full', **options)
    code, _, err = xtune('train', config, '--cfg-options', 'pack=False')
    assert code == 0, err
    code, out, err = xtune('convert', 'pth_to_hf', config, config.with_suffix('') / 'iter_2.pth', tmp_path / 'hf')
    assert code == 0 and 'the same' in out, err
    before, after = (load_file(folder / 'model.safetensors') for folder in (base, tmp_path / 'hf'))
    assert before.keys() == after.keys()
    kept = [name for name in before if buffer in name]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / 'hf', output_loading_info=True)
    assert not info['missing_keys'] and not info['unexpected_keys']


def test_buffers_are_restored_and_may_be_missing_in_earlier_checkpoints(tmp_path):
    llm = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    llm[1].register_buffer('computed', torch.ones(2), persistent=False)
    strategy = Replicated()
    strategy.attach(SupervisedFineTuning(llm, torch.float32), torch.optim.SGD(llm.parameters(), lr=1.0))
    state = TrainedState(llm, strategy)
    saved = {name: tensor.clone() for name, tensor in state.get().items()}
    assert '1.running_mean' in saved and '1.computed' not in saved and '1.weight' in saved
    llm[1].running_mean.fill_(7.0)
    state.set(saved, tmp_path)
    assert not llm[1].running_mean.any()
    llm[1].running_mean.fill_(7.0)
    state.set({name: tensor for name, tensor in saved.items() if 'running' not in name}, tmp_path)
    assert (llm[1].running_mean == 7.0).all()


@pytest.mark.parametrize(
    'options',
    [
        {'lora.modules_to_save': ['embed_tokens'], 'lora.ensure_weight_tying': True},
        pytest.param({'lora.trainable_token_indices': [5, 6]}, marks=pytest.mark.slow),
    ],
)
def test_adapter_with_trained_embeddings_is_exported_and_resumed(options, make_config, xtune, tiny_model, tmp_path):
    small = {
        'schedule.max_steps': 2,
        'schedule.gradient_accumulation_steps': 1,
        'checkpoint.every_steps': 1,
        'max_length': 64,
    }
    config = make_config('lora', **small, **options)
    code, _, err = xtune('train', config)
    assert code == 0, err
    checkpoint = config.with_suffix('') / 'iter_2.pth'
    code, _, err = xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')
    assert code == 0, err
    assert json.loads((tmp_path / 'hf' / 'verification.json').read_text())['relative_error'] < 1e-3
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'hf', tmp_path / 'merged')
    assert code == 0, err
    code, _, err = xtune('train', config, '--resume', config.with_suffix('') / 'iter_1.pth')
    assert code == 0, err


def test_router_in_modules_to_save_keeps_its_buffer(small_model, make_config, xtune, tmp_path):
    base = small_model('glm4_moe')
    options = {'lora.modules_to_save': ['gate'], 'lora.target_modules': ['q_proj'], 'schedule.max_steps': 1}
    config = make_config('lora', base_model=str(base), **options)
    code, _, err = xtune('train', config, '--cfg-options', 'pack=False')
    assert code == 0, err
    code, _, err = xtune('convert', 'pth_to_hf', config, config.with_suffix('') / 'iter_1.pth', tmp_path / 'hf')
    assert code == 0, err
    names = load_file(tmp_path / 'hf' / 'adapter_model.safetensors')
    assert any('e_score_correction_bias' in name for name in names)


def test_adapter_that_cannot_be_reloaded_stops_the_run_before_step_1(make_config, xtune, monkeypatch):
    import peft

    # Simulates a bug of peft: a tensor is missing in the saved state.
    original = peft.get_peft_model_state_dict

    def lossy(*args, **kwargs):
        return dict(list(original(*args, **kwargs).items())[1:])

    monkeypatch.setattr('xtune.engine.trained_state.get_peft_model_state_dict', lossy)
    config = make_config('lora')
    code, out, err = xtune('train', config)
    assert code == 2 and 'step 1' not in out
    assert not list(config.with_suffix('').glob('*.pth')) and not list(config.with_suffix('').glob('.check*'))
