"""Entries of section `lora` that match nothing in the model, which peft ignores, are errors with close names."""

import copy

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from xtune.errors import ModelError
from xtune.methods.lora_effects import check_adapted, check_skipped
from xtune.methods.lora_names import check_names
from xtune.ops.float8_linear import Float8Config

SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
Q = dict(target_modules=['q_proj'])


def llama():
    with torch.device('meta'):
        return LlamaForCausalLM(LlamaConfig(**SMALL))


def mixtral():
    with torch.device('meta'):
        return MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1))


def adapt(model, config_class=LoraConfig, **section):
    """Attach and check an adapter as a run does; return the names of the adapted modules."""
    config = config_class(task_type='CAUSAL_LM', **section)
    user_config = copy.deepcopy(config)
    check_names(user_config, model)
    with torch.device('meta'):
        adapted = get_peft_model(model, config)
    check_adapted(user_config, adapted)
    return adapted.base_model.targeted_module_names


NO_MATCH = [
    dict(target_modules=['q_proj', 'v_porj']),
    dict(target_modules='q_proj'),
    dict(target_modules=r'.*\.q_porj'),
    dict(target_modules='('),
    dict(target_modules=['mlp']),
    dict(Q, modules_to_save=['lm_haed', 'norm']),
    dict(target_modules=['q_proj', 'lm_head'], modules_to_save=['lm_head']),
    dict(Q, exclude_modules=['k_proj', 'o_prj']),
    dict(Q, exclude_modules='.*o_prj'),
    dict(Q, exclude_modules=['q_proj'], target_parameters=['k_proj.weight']),
    dict(Q, rank_pattern={'v_proj': 4}),
    dict(Q, rank_pattern={'q_proj': 4, 'q_prj': 4}),
    dict(Q, alpha_pattern={r'layers\.7\..*q_proj': 4}),
    dict(Q, alpha_pattern={'(': 4}),
    dict(Q, layers_to_transform=[0, 7]),
    dict(Q, layers_to_transform=[1], layers_pattern=['layrs']),
    dict(Q, target_parameters=['mlp.gate_proj.wight']),
    dict(Q, trainable_token_indices=[1, 64]),
    dict(Q, trainable_token_indices={'embed_tokns': [1]}),
]


def test_names_that_match_nothing_are_refused(golden):
    messages = {}
    for section in NO_MATCH:
        with pytest.raises(ModelError) as caught:
            adapt(llama(), **section)
        messages[str(section)] = caught.value
    golden('config.lora_names', messages)


def test_one_error_lists_all_wrong_names():
    with pytest.raises(ModelError) as error:
        adapt(llama(), target_modules=['q_porj', 'k_proj'], modules_to_save=['nrm'], exclude_modules=['o_prj'])
    assert all(f"'{name}'" in str(error.value) for name in ('q_porj', 'nrm', 'o_prj'))


@pytest.mark.parametrize(
    ('section', 'count'),
    [
        (dict(target_modules='all-linear'), 14),
        (dict(target_modules='all-linear', exclude_modules=['lm_head', 'q_proj']), 12),
        (dict(target_modules=r'.*\.(q|v)_proj', rank_pattern={r'layers\.1\..*q_proj': 4}), 4),
        (dict(Q, modules_to_save=['lm_head', 'norm'], trainable_token_indices={'embed_tokens': [1, 63]}), 2),
        (dict(Q, layers_to_transform=1, layers_pattern='layers', alpha_pattern={'q_proj': 4}), 1),
        (dict(Q, layer_replication=[(0, 2), (1, 2)], layers_to_transform=[2]), 1),
        (dict(Q, target_parameters=['mlp.gate_proj.weight']), 2),
        (dict(), 4),  # peft's default for this model type
        (dict(config_class=IA3Config, target_modules=['k_proj', 'down_proj'], feedforward_modules=['down_proj']), 4),
    ],
)
def test_names_that_match_are_accepted(section, count):
    assert len(adapt(llama(), **section)) == count


def test_names_that_peft_converts_to_expert_tensors_are_accepted():
    assert len(adapt(mixtral(), target_modules=['q_proj', 'w1', 'w2', 'w3'])) == 2
    assert len(adapt(mixtral(), **Q, target_parameters=['experts.gate_up_proj'])) == 2
    with pytest.raises(ModelError, match='gate_up_prj'):
        adapt(mixtral(), **Q, target_parameters=['experts.gate_up_prj'])


def test_unknown_layers_to_skip_in_quantization_are_refused():
    from functools import partial

    model = llama()
    check_skipped(None, model)
    check_skipped(partial(Float8Config), model)  # the default names routers, which this model does not have
    check_skipped(partial(Float8Config, skip=['router', 'down_proj', 'layers.0.mlp']), model)
    check_skipped(partial(BitsAndBytesConfig, llm_int8_skip_modules=['lm_head']), model)
    with pytest.raises(ModelError, match='quantization.skip .*down_prj.*`down_proj`'):
        check_skipped(partial(Float8Config, skip=['down_prj']), model)
    with pytest.raises(ModelError, match='quantization.llm_int8_skip_modules .*lm_haed'):
        check_skipped(partial(BitsAndBytesConfig, llm_int8_skip_modules=['lm_haed']), model)
