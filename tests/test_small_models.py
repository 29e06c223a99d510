"""The builder of small models reaches nearly every causal LM class of the installed transformers."""

import pytest
import torch
from small_models import small_classes, small_config, small_model
from small_tables import LEFT_OUT
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

# Layers of several kinds, of experts, of nested configs, and with positions that are learned.
SOME = (
    'LlamaForCausalLM',
    'GraniteMoeHybridForCausalLM',
    'MixtralForCausalLM',
    'GPT2LMHeadModel',
    'DeepseekV3ForCausalLM',
)


def builds(name):
    model = small_model(name)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    with torch.no_grad():
        logits = model(input_ids=torch.arange(1, 13)[None], use_cache=False).logits
    assert logits.shape == (1, 12, model.config.get_text_config().vocab_size) and logits.isfinite().all()


def test_at_least_120_classes_can_be_built():
    assert len(small_classes()) >= 120
    assert not set(small_classes()) & set(LEFT_OUT)
    assert all(name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in small_classes())


@pytest.mark.parametrize('name', SOME)
def test_a_small_model_has_logits(name):
    builds(name)


@pytest.mark.slow
@pytest.mark.parametrize('name', small_classes())
def test_every_small_model_has_logits(name):
    builds(name)


def test_changes_replace_default_values():
    config = small_config('LlamaForCausalLM', vocabulary=50, tie_word_embeddings=True, num_hidden_layers=3)
    assert (config.vocab_size, config.tie_word_embeddings, config.num_hidden_layers) == (50, True, 3)
    assert small_config('BltForCausalLM') is None
