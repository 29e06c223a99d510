"""`all-linear` adapts no routers and no layers that peft refuses; models with such adapters train."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import small_classes, small_model

from xtune.errors import ModelError
from xtune.methods.lora_targets import is_linear, resolve_targets
from xtune.optimizations.fused_lora import fuse_lora

# Class -> last names of layers without an adapter.
UNADAPTED = {
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
WITH_A_NOTE = ('NemotronHForCausalLM', 'FalconH1ForCausalLM', 'MambaForCausalLM', 'Mamba2ForCausalLM')


def adapted(name):
    """Return a model of the class with LoRA on all linear layers, and the note for the user."""
    model = small_model(name)
    config = LoraConfig(r=2, target_modules='all-linear', task_type='CAUSAL_LM')
    note = resolve_targets(model, config)
    return get_peft_model(model, config), note


def train(model, fused=True):
    """Run a forward and a backward pass as a run does; return the gradients."""
    model.train()
    if fused:
        fuse_lora(model, torch.float32)
    ids = torch.arange(1, 13)[None]
    model(input_ids=ids, use_cache=False).logits.float().square().mean().backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('name', UNADAPTED)
def test_all_linear_trains_without_routers_and_refused_layers(name, fused):
    model, note = adapted(name)
    trained = {n.split('.lora_')[0].rpartition('.')[2] for n, p in model.named_parameters() if p.requires_grad}
    assert trained and not trained & UNADAPTED[name]
    assert any(grad is not None for grad in train(model, fused))
    assert (note is not None) == (name in WITH_A_NOTE)


@pytest.mark.slow
@pytest.mark.parametrize('name', small_classes())
def test_all_linear_fits_every_class(name):
    adapted(name)


@pytest.mark.parametrize('name', ['Llama4ForCausalLM', 'PhimoeForCausalLM'])
def test_a_router_that_cannot_have_an_adapter_is_refused_as_a_target(name):
    model = small_model(name)
    routers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and not is_linear(m)]
    if not routers:
        pytest.skip('its router returns a tensor in this version of transformers')
    with pytest.raises(ModelError, match=r'lora\.target_modules .*`router`'):
        resolve_targets(model, LoraConfig(target_modules=['router', 'q_proj']))
    resolve_targets(model, LoraConfig(target_modules=['q_proj']))


def test_a_router_that_is_an_ordinary_linear_layer_is_accepted_as_a_target():
    model = small_model('JetMoeForCausalLM')
    config = LoraConfig(r=2, target_modules=['mlp.router.layer'], task_type='CAUSAL_LM')
    assert resolve_targets(model, config) is None
    assert len(train(get_peft_model(model, config))) >= 2
