"""Compiled layers are counted as torch.compile would have them: what is kept, and what a pass takes."""

import functools
import gc

import pytest
import torch
from torch._functorch.partitioners import min_cut_rematerialization_partition

from xtune.engine.prepare_model import add_meta_adapter
from xtune.methods.meta_model import build_meta_model
from xtune.models.loading.hf_config import load_hf_config
from xtune.ops.compilation import replaced
from xtune.optimizations.activation_checkpointing import keep, recompute, recompute_activations
from xtune.optimizations.fused_lora import fuse_adapters
from xtune.planning.compiled_estimate import CountedGraphs
from xtune.planning.fusion import Graph
from xtune.planning.meta_model import planned_meta_model
from xtune.planning.phase_meters import without_values
from xtune.planning.planner import Planner
from xtune.planning.predict import _slice
from xtune.planning.random_init import fill

ROWS, WIDTH = 8, 128


def run(model, hidden):
    base = model.get_base_model().model
    layer = base.layers[0]
    positions = torch.arange(hidden.shape[1])[None]
    cos_sin = [t.to(hidden.dtype) for t in base.rotary_emb(hidden, positions)]
    made = layer(hidden, position_embeddings=tuple(cos_sin), attention_mask=None)
    return made[0] if isinstance(made, tuple) else made


@pytest.fixture
def made(job, shape):
    folder = shape(num_hidden_layers=1, vocab_size=500, hidden_size=128, intermediate_size=512)
    options = {'lora.lora_dropout': 0.0, 'checkpointing': 'none'}
    return lambda method='lora', **more: job(method, base_model=folder, **options, **more)


def fuse(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    assert fuse_adapters(model.train(), torch.bfloat16) == 7


def counted(job, way, fused=False):
    """Return the bytes that one layer keeps, and the graphs it was counted with."""
    graphs, model = CountedGraphs(), None
    model = build_meta_model(job.model, load_hf_config(job.values.base_model, job.load_llm), torch.bfloat16)
    model = add_meta_adapter(model, job.model)
    with without_values() as graphs.meter, replaced(graphs.stand_in):
        fill(model, torch.device('cpu'))
        if fused:
            fuse(model)
        recompute_activations(model, None, graphs.stand_in(way))
        hidden = torch.zeros(ROWS, WIDTH, 128, dtype=torch.bfloat16, requires_grad=True)
        before = graphs.meter.now
        out = run(model, hidden)
        kept = graphs.meter.now - before - out.nbytes
        out.sum().backward()
        del out
        hidden.grad = None
        gc.collect()
        left = graphs.meter.now - before
    return kept, left, graphs


@pytest.mark.parametrize('fused', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_kept_is_what_torch_compile_keeps(fused, made):
    from functorch.compile import nop
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.decomposition import select_decomp_table

    job = made()
    model = build_meta_model(job.model, load_hf_config(job.values.base_model, job.load_llm), torch.bfloat16)
    model = add_meta_adapter(model, job.model)
    fill(model, torch.device('cpu'))
    model.train()
    if fused:
        fuse(model)
    parted = functools.partial(min_cut_rematerialization_partition, compiler='inductor')
    backend = aot_autograd(fw_compiler=nop, bw_compiler=nop, decompositions=select_decomp_table(), partition_fn=parted)
    hidden = torch.zeros(ROWS, WIDTH, 128, dtype=torch.bfloat16, requires_grad=True)
    given = {p.untyped_storage().data_ptr() for p in (*model.parameters(), hidden)}
    real = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in given:
            real[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    layer = torch.compile(run, backend=backend)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(model, hidden)
    kept, _, graphs = counted(job, keep, fused)
    print('KEPT', kept, sum(real.values()), sorted(real.values()))
    assert None not in graphs._made.values()
    assert kept == pytest.approx(sum(real.values()), rel=0.1)


def test_a_slice_takes_the_same_when_its_graphs_are_there(made):
    job, graphs = made(), CountedGraphs()
    first, second = (
        _slice(job, load_hf_config(job.values.base_model, job.load_llm), torch.bfloat16, None, graphs, [0])
        for _ in range(2)
    )
    assert first == second


@pytest.mark.slow
def test_nothing_is_kept_of_what_is_recomputed_nor_after_the_backward_pass(made):
    job = made()
    trained = sum(p.numel() for p in frame_of(job).parameters() if p.requires_grad)
    kept, left, _ = counted(job, keep)
    less, left_again, graphs = counted(job, recompute)
    border = ROWS * WIDTH * 128 * 2
    assert kept > 6 * border > 0.5 * border > less and None not in graphs._made.values()
    # The gradients, in units of the allocator.
    assert 0 < left < 4 * trained + 14 * 1024 and left_again == left


def frame_of(job):
    return add_meta_adapter(
        planned_meta_model(job, load_hf_config(job.values.base_model, job.load_llm), torch.bfloat16), job.model
    )


@pytest.mark.slow
@pytest.mark.parametrize('method', ['qlora', 'fp8_lora'])
def test_quantised_layers_have_a_graph_that_keeps_as_much(method, made):
    preset = made(method) if method == 'qlora' else float8(made)
    kept, _, graphs = counted(preset, keep)
    assert None not in graphs._made.values()
    assert kept == pytest.approx(counted(made(), keep)[0], rel=0.1)


def float8(made):
    from dataclasses import replace

    from xtune.ops.float8_linear import Float8Config

    return replace(made(), quantization=functools.partial(Float8Config))


@pytest.mark.slow
def test_float8_weights_take_two_bytes_each_and_scales(made):
    job = float8(made)
    found = {name: Planner(one).counted(one) for name, one in (('float8', job), ('bf16', made()))}
    assert found['bf16'].frozen < found['float8'].frozen < 1.1 * found['bf16'].frozen


@pytest.mark.slow
def test_compiled_runs_take_less_than_others(made):
    options = {'schedule.batch_size': 32}
    with_, without = made(**options), made(**options, **{'speed.compile': False})
    compiled, plain = (Planner(one).counted(one) for one in (with_, without))
    assert compiled.kept < 0.9 * plain.kept and compiled.peak < plain.peak


def test_a_layer_that_has_no_graph_counts_as_not_compiled():
    class Layer(torch.nn.Module):
        def forward(self, values):
            return values * 2 if values.sum() > 0 else values.numpy()

    graphs = CountedGraphs()
    with without_values() as graphs.meter:
        values = torch.ones(1000, requires_grad=True)
        out = graphs.stand_in(keep)(Layer().forward, values)
    assert out.shape == (1000,) and list(graphs._made.values()) == [None]


def test_operations_on_single_numbers_take_no_memory_between_products():
    def function(a, b):
        return ((a @ b).sin() * 2 + 1).cos() @ b

    with torch._subclasses.FakeTensorMode():
        a, b = torch.ones(256, 256), torch.ones(256, 256)
        traced = torch.fx.experimental.proxy_tensor.make_fx(lambda *both: [function(*both)])(a, b)
    one = 256 * 256 * 4
    # The first product and what the second one reads are the same memory only if a kernel may write over what it reads.
    assert Graph(traced).peak == 2 * one
