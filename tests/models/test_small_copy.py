"""A small copy leaks between packed samples if and only if the full model does."""

from contextlib import nullcontext

import pytest
import torch
from small_models import small_classes, small_config
from transformers import CONFIG_MAPPING, AutoConfig, LlamaConfig, PreTrainedConfig

from xtune.models.small_copy import small_copy
from xtune.optimizations.packing_parity import PackingParity
from xtune.planning.published_configs import entries

CPU = torch.device('cpu')
MODELS = entries()


def separates_samples(config):
    copy = small_copy(config, CPU)
    return copy and PackingParity(copy, torch.float32, CPU, nullcontext()).verdict().independent


def preset_config(name):
    """Return the config of a preset's model, with the values of its config.json."""
    values = MODELS[name]
    cls = CONFIG_MAPPING[values['type']]
    skipped = ('type', 'dtype', 'rope_parameters')  # its lists are shortened
    return cls(**{key: value for key, value in values.items() if key not in skipped})


def one_of_each_type():
    """Return the name of one preset's model of each model type."""
    names = {}
    for name in MODELS:
        names.setdefault(MODELS[name].get('type'), name)
    return sorted(name for model_type, name in names.items() if model_type in CONFIG_MAPPING)


@pytest.mark.parametrize('name', one_of_each_type())
def test_copies_of_the_presets_models_separate_packed_samples(name):
    assert separates_samples(preset_config(name)) == ('gpt_oss' not in name)


@pytest.mark.parametrize(
    ('model_type', 'changes', 'expected'),
    [
        ('granitemoehybrid', dict(num_hidden_layers=2, layer_types=['linear_attention', 'full_attention']), False),
        ('qwen3_next', dict(num_hidden_layers=9, layer_types=['full_attention'] * 9), True),
        ('lfm2', dict(num_hidden_layers=16, layer_types=['conv'] * 10 + ['full_attention'] * 6), False),
        ('lfm2', dict(num_hidden_layers=16, layer_types=['full_attention'] * 16), True),
        ('qwen3_5_text', {}, False),
        ('jamba', {}, False),
        ('falcon_h1', dict(mamba_d_ssm=1536, mamba_n_heads=24, mamba_d_head=64), False),
        ('falcon', dict(alibi=True), False),
        ('llama', dict(rope_parameters=dict(rope_type='llama3', rope_theta=5e5, factor=8.0, low_freq_factor=1.0,
            high_freq_factor=4.0, original_max_position_embeddings=8192)), True),
    ],
)  # fmt: skip
def test_a_copy_has_the_layer_types_of_its_config(model_type, changes, expected):
    assert separates_samples(CONFIG_MAPPING[model_type](**changes)) == expected


def test_baichuan_with_alibi_separates_packed_samples():
    from xtune.models.legacy.alibi import BaichuanAlibiForCausalLM

    assert separates_samples(BaichuanAlibiForCausalLM.config_class())


def test_a_copy_is_small_and_does_not_change_the_random_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    copy = small_copy(LlamaConfig(hidden_size=8192, num_hidden_layers=80, num_attention_heads=64), CPU, 'eager')
    assert torch.equal(torch.rand(3), expected)
    assert sum(p.numel() for p in copy.parameters()) < 100_000
    assert copy.config._attn_implementation == 'eager'


def test_there_is_no_copy_of_a_config_that_transformers_does_not_know():
    class OwnConfig(PreTrainedConfig):
        model_type = 'own'

    assert small_copy(OwnConfig(), CPU) is None
    assert small_copy(AutoConfig.for_model('vit'), CPU) is None


@pytest.mark.slow
@pytest.mark.parametrize('name', small_classes())
def test_every_copy_leaks_if_and_only_if_its_model_does(name):
    from small_models import small_model

    config = small_config(name)
    separated = separates_samples(config)
    if separated is not None:
        assert separated == PackingParity(small_model(name), torch.float32, CPU, nullcontext()).verdict().independent
