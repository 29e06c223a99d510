"""Activation checkpointing changes memory, not numbers."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from xtune.errors import ModelError
from xtune.ops.compilation import Compiled, can_compile, checkpoint_recomputes_custom_functions, compiled
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.layer_call import call_layer, checkpoint_layer
from xtune.utils.model_structure import layers_of


def run(tiny_model, count):
    """Return the loss, a gradient, and how often each layer's attention computed."""
    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).train()
    if count != 'none':
        ActivationCheckpointing(llm).apply(CheckpointPolicy.from_option(count))
    calls = [0] * len(layers_of(llm))
    for number, layer in enumerate(layers_of(llm)):
        layer.self_attn.register_forward_hook(lambda *_, at=number: calls.__setitem__(at, calls[at] + 1))
    ids = torch.arange(12)[None]
    loss = llm(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item(), llm.model.layers[0].mlp.up_proj.weight.grad, calls


@pytest.mark.parametrize(('count', 'calls'), [(0, [1, 1]), (1, [2, 1]), (2, [2, 2]), ('all', [2, 2])])
def test_the_first_layers_are_checkpointed(tiny_model, count, calls):
    plain, found = run(tiny_model, 'none'), run(tiny_model, count)
    assert found[2] == calls and plain[2] == [1, 1]
    assert found[0] == plain[0] and torch.equal(found[1], plain[1])


def test_more_layers_than_the_model_has_are_refused(tiny_model):
    with pytest.raises(ModelError, match='activation_checkpointing=3.* 2 layers'):
        run(tiny_model, 3)


@pytest.mark.parametrize(('value', 'text'), [('some', "'some'"), (-1, 'got -1')])
def test_other_values_are_refused(make_config, xtune, value, text):
    code, _, err = xtune('train', make_config(), '--cfg-options', f'activation_checkpointing={value}')
    assert code == 2 and 'activation_checkpointing' in err and text in err


SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ('qwen3', 'mixtral', 'starcoder2')]


@pytest.mark.integration
@pytest.mark.parametrize('family', ['llama', 'gemma3_text', *SLOW])
def test_compiled_layers_share_graphs_and_change_nothing(family):
    """One graph with checkpointing and one without, and the same for the first layer, whose input needs no gradient;
    not one for each layer."""
    torch.manual_seed(0)
    tiny = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2)
    more = dict(layer_types=['full_attention', 'sliding_attention'] * 3) if family == 'gemma3_text' else {}
    config = AutoConfig.for_model(family, **tiny, num_hidden_layers=6, head_dim=8, pad_token_id=0, **more)
    llm = AutoModelForCausalLM.from_config(config).train()
    for parameter in llm.get_input_embeddings().parameters():
        parameter.requires_grad_(False)
    weight = next(p for name, p in llm.named_parameters() if 'layers.0' in name and 'proj' in name)
    graphs, ids, found = [], torch.arange(12)[None], []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    def run():
        llm.zero_grad()
        llm(input_ids=ids, use_cache=False).logits.square().mean().backward()
        return weight.grad.clone()

    layers = ActivationCheckpointing(llm)
    plain = run()
    layers.compile(backend)
    for count in (6, 0, 2, 6):
        layers.apply(CheckpointPolicy(count))
        assert layers.num_checkpointed == count
        torch.testing.assert_close(run(), plain)
        found.append(len(graphs))
    assert not compiled(call_layer, backend).failed and not compiled(checkpoint_layer, backend).failed
    assert found[1] == found[3], 'a change compiled something anew'
    if family != 'mixtral':  # which expert takes which token breaks its graphs
        assert found[0] <= (4 if family == 'gemma3_text' else 2)
    with torch.no_grad():
        assert torch.isfinite(llm(input_ids=ids).logits).all()


class Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right):
        ctx.save_for_backward(right)
        return left @ right

    @staticmethod
    def backward(ctx, grad):
        return grad @ ctx.saved_tensors[0].T, None


class Layer(torch.nn.Module):
    def __init__(self, functions):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 8), requires_grad=False)
        self.matmul = Matmul.apply if functions else torch.matmul

    def forward(self, values):
        return self.matmul(torch.sin(self.matmul(values, self.weight)), self.weight)


@pytest.mark.parametrize('functions', [False, True])
def test_compiled_checkpointing_saves_only_the_input_of_a_layer(functions):
    torch.manual_seed(0)
    model = torch.nn.ModuleList([Layer(functions)]).train()
    layers, saved = ActivationCheckpointing(model), []
    values = torch.randn(4, 8, requires_grad=True)
    plain = torch.autograd.grad(model[0](values).sum(), values)
    layers.compile('aot_eager_decomp_partition', functions)
    for count, limit in ((1, 1), (0, 2)):
        layers.apply(CheckpointPolicy(count))
        saved.clear()
        with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
            made = layers.layers[0](values)
        torch.testing.assert_close(torch.autograd.grad(made.sum(), values), plain)
        assert sum(tensor.shape == (4, 8) for tensor in saved) <= limit


def test_torch_versions_that_recompute_custom_functions_are_known():
    """Where it does not, checkpointing is outside of the compiled graph: the test above passes either way."""
    if torch.__version__ < '2.12':
        assert not checkpoint_recomputes_custom_functions()
    if torch.__version__ >= '2.13':
        assert checkpoint_recomputes_custom_functions()


def test_a_failed_compilation_falls_back_to_eager_mode(capsys):
    def backend(graph, _):
        raise RuntimeError('no C compiler')

    fast = Compiled(torch.sin, backend)
    for _ in range(2):
        assert fast(torch.zeros(3)).tolist() == [0, 0, 0]
    assert fast.failed and capsys.readouterr().out.count('torch.compile') == 1
    assert not can_compile(torch.device('cpu'))
