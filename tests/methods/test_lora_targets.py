"""Which layers `all-linear` adapts: no routers, nothing that peft refuses; such models train."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import small_classes, small_model

from xtune.errors import ModelError
from xtune.methods.lora_targets import choose_targets, is_linear
from xtune.optimizations.fused_lora import fuse_lora

# Class -> last names of layers that get no adapter.
SOME = {
    'Llama4ForCausalLM': {'router'},
    'PhimoeForCausalLM': {'router'},
    'GraniteMoeForCausalLM': {'layer'},
    'JambaForCausalLM': {'router'},
    'NemotronHForCausalLM': {'out_proj'},
    'FalconH1ForCausalLM': {'out_proj'},
    'MambaForCausalLM': {'out_proj'},
    'Mamba2ForCausalLM': {'out_proj'},
    'LlamaForCausalLM': set(),
    'GPT2LMHeadModel': set(),
}
REFUSED = ('NemotronHForCausalLM', 'FalconH1ForCausalLM', 'MambaForCausalLM', 'Mamba2ForCausalLM')


def adapted(name):
    """Return the class with LoRA on all linear layers, and what is said about it."""
    model = small_model(name)
    config = LoraConfig(r=2, target_modules='all-linear', task_type='CAUSAL_LM')
    said = choose_targets(model, config)
    return get_peft_model(model, config), said


def train(model, fused=True):
    """Do a step, as a run does it, and return the gradients."""
    model.train()
    if fused:
        fuse_lora(model, torch.float32)
    ids = torch.arange(1, 13)[None]
    model(input_ids=ids, use_cache=False).logits.float().square().mean().backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('name', SOME)
def test_all_linear_trains_without_routers_and_refused_layers(name, fused):
    model, said = adapted(name)
    trained = {n.split('.lora_')[0].rpartition('.')[2] for n, p in model.named_parameters() if p.requires_grad}
    assert trained and not trained & SOME[name]
    assert any(slope is not None for slope in train(model, fused))
    assert (said is not None) == (name in REFUSED)


@pytest.mark.slow
@pytest.mark.parametrize('name', small_classes())
def test_all_linear_fits_every_class(name):
    adapted(name)


@pytest.mark.parametrize('name', ['Llama4ForCausalLM', 'PhimoeForCausalLM'])
def test_a_router_that_is_named_is_refused_if_no_adapter_fits_on_it(name):
    model = small_model(name)
    routers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and not is_linear(m)]
    if not routers:
        pytest.skip('its router returns a tensor in this version of transformers')
    with pytest.raises(ModelError, match=r'router.*take'):
        choose_targets(model, LoraConfig(target_modules=['router', 'q_proj']))
    choose_targets(model, LoraConfig(target_modules=['q_proj']))


def test_a_router_that_is_an_ordinary_layer_may_be_named():
    model = small_model('JetMoeForCausalLM')
    config = LoraConfig(r=2, target_modules=['mlp.router.layer'], task_type='CAUSAL_LM')
    assert choose_targets(model, config) is None
    assert len(train(get_peft_model(model, config))) >= 2
