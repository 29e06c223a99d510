"""Recomputed layers change memory, not figures."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from xtune.errors import ModelError
from xtune.models.layers import layers_of
from xtune.models.recompute import Recomputation, recompute_activations


def run(tiny_model, count):
    """Return the loss, a gradient, and how often each layer's attention computed."""
    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).train()
    if count != 'none':
        recompute_activations(llm, None if count == 'all' else count)
    calls = [0] * len(layers_of(llm))
    for number, layer in enumerate(layers_of(llm)):
        layer.self_attn.register_forward_hook(lambda *_, at=number: calls.__setitem__(at, calls[at] + 1))
    ids = torch.arange(12)[None]
    loss = llm(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item(), llm.model.layers[0].mlp.up_proj.weight.grad, calls


@pytest.mark.parametrize(('count', 'calls'), [(0, [1, 1]), (1, [2, 1]), (2, [2, 2]), ('all', [2, 2])])
def test_the_first_layers_are_recomputed(tiny_model, count, calls):
    plain, found = run(tiny_model, 'none'), run(tiny_model, count)
    assert found[2] == calls and plain[2] == [1, 1]
    assert found[0] == plain[0] and torch.equal(found[1], plain[1])


def test_more_layers_than_there_are_is_refused(tiny_model):
    with pytest.raises(ModelError, match='checkpointing=3, but the model has 2 layers'):
        run(tiny_model, 3)


@pytest.mark.parametrize(('value', 'said'), [('some', "'some'"), (-1, 'at least 0, got -1')])
def test_other_values_are_refused(make_config, xtune, value, said):
    code, _, err = xtune('train', make_config(), '--cfg-options', f'checkpointing={value}')
    assert code == 2 and 'checkpointing' in err and said in err


def test_a_change_compiles_nothing_anew(tiny_model):
    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).train()
    layers, graphs = Recomputation(llm), []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    for layer in layers.layers:
        layer.compile(backend=backend)
    ids, found = torch.arange(12)[None], []
    for count in (2, 0, 1, 2):
        layers.set(count)
        llm.zero_grad()
        llm(input_ids=ids, use_cache=False).logits.square().mean().backward()
        found.append((len(graphs), llm.model.layers[0].mlp.up_proj.weight.grad.clone()))
    assert found[0][0] and len({count for count, _ in found}) == 1
    assert all(torch.equal(gradient, found[0][1]) for _, gradient in found)
    with torch.no_grad():
        assert torch.isfinite(llm(input_ids=ids).logits).all()
