"""Each entry of section `lora` names something in the model; what peft would ignore is an error with close names."""

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


def adapt(model, kind=LoraConfig, **section):
    """Do what a run does with section `lora`, and return the names of what is adapted."""
    config = kind(task_type='CAUSAL_LM', **section)
    given = copy.deepcopy(config)
    check_names(given, model)
    with torch.device('meta'):
        adapted = get_peft_model(model, config)
    check_adapted(given, adapted)
    return adapted.base_model.targeted_module_names


@pytest.mark.parametrize(
    ('section', 'said'),
    [
        (dict(target_modules=['q_proj', 'v_porj']), "target_modules names 'v_porj'.*did you mean `v_proj`"),
        (dict(target_modules='q_proj'), r"matches no module.*whole name.*write \['q_proj'\]"),
        (dict(target_modules=r'.*\.q_porj'), 'matches no module.*did you mean `q_proj`'),
        (dict(target_modules='('), 'is no regular expression'),
        (dict(target_modules=['mlp']), 'is a LlamaMLP and has no weight of its own.*gate_proj, up_proj, down_proj'),
        (dict(target_modules=['q_proj'], modules_to_save=['lm_haed', 'norm']), 'lm_haed.*did you mean `lm_head`'),
        (dict(target_modules=['q_proj', 'lm_head'], modules_to_save=['lm_head']), 'gets no adapter: lora.modules_to_'),
        (dict(Q, exclude_modules=['k_proj', 'o_prj']), "exclude_modules names 'o_prj'"),
        (dict(Q, exclude_modules='.*o_prj'), 'exclude_modules=.*matches no module'),
        (dict(Q, exclude_modules=['q_proj'], target_parameters=['k_proj.weight']), 'exclude_modules leaves it out'),
        (dict(Q, rank_pattern={'v_proj': 4}), "rank_pattern names 'v_proj', which gets no adapter"),
        (dict(Q, rank_pattern={'q_proj': 4, 'q_prj': 4}), "rank_pattern names 'q_prj'.*did you mean `q_proj`"),
        (dict(Q, alpha_pattern={r'layers\.7\..*q_proj': 4}), 'alpha_pattern names'),
        (dict(Q, alpha_pattern={'(': 4}), 'is no regular expression'),
        (dict(Q, layers_to_transform=[0, 7]), 'layers_to_transform names 7, and the model has the layers 0 to 1'),
        (dict(Q, layers_to_transform=[1], layers_pattern=['layrs']), "layers_pattern names 'layrs'.*mean `layers`"),
        (dict(Q, target_parameters=['mlp.gate_proj.wight']), 'no parameter of the model'),
        (dict(Q, trainable_token_indices=[1, 64]), 'holds 64, and the model has the tokens 0 to 63'),
        (dict(Q, trainable_token_indices={'embed_tokns': [1]}), 'did you mean `embed_tokens`'),
    ],
)
def test_what_matches_nothing_is_refused(section, said):
    with pytest.raises(ModelError, match=said):
        adapt(llama(), **section)


def test_all_wrong_names_are_said_at_once():
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
        (dict(), 4),  # what peft takes for this kind of model
        (dict(kind=IA3Config, target_modules=['k_proj', 'down_proj'], feedforward_modules=['down_proj']), 4),
    ],
)
def test_what_matches_is_taken(section, count):
    assert len(adapt(llama(), **section)) == count


def test_names_that_peft_gives_to_tensors_of_experts_are_taken():
    assert len(adapt(mixtral(), target_modules=['q_proj', 'w1', 'w2', 'w3'])) == 2
    assert len(adapt(mixtral(), **Q, target_parameters=['experts.gate_up_proj'])) == 2
    with pytest.raises(ModelError, match='gate_up_prj'):
        adapt(mixtral(), **Q, target_parameters=['experts.gate_up_prj'])


def test_layers_that_a_quantisation_leaves_out_are_named():
    from functools import partial

    model = llama()
    check_skipped(None, model)
    check_skipped(partial(Float8Config), model)  # the default names routers, which this model does not have
    check_skipped(partial(Float8Config, skip=['router', 'down_proj', 'layers.0.mlp']), model)
    check_skipped(partial(BitsAndBytesConfig, llm_int8_skip_modules=['lm_head']), model)
    with pytest.raises(ModelError, match='quantization.skip names.*did you mean `down_proj`'):
        check_skipped(partial(Float8Config, skip=['down_prj']), model)
    with pytest.raises(ModelError, match='llm_int8_skip_modules names'):
        check_skipped(partial(BitsAndBytesConfig, llm_int8_skip_modules=['lm_haed']), model)
