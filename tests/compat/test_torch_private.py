"""Every private name of torch that a training run uses is there and does what xtune relies on."""

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh

from xtune.compat import torch_private


def test_torch_compile_raises_the_compile_error():
    def breaks(values):
        torch._dynamo.graph_break()
        return values + 1

    with pytest.raises(torch_private.compile_error()):
        torch.compile(breaks, backend='eager', fullgraph=True)(torch.ones(2))


def test_the_recompile_limit_is_raised_and_never_lowered():
    before = torch._dynamo.config.recompile_limit
    try:
        torch_private.allow_recompiles(before + 1)
        torch_private.allow_recompiles(before)
        assert torch._dynamo.config.recompile_limit == before + 1
    finally:
        torch._dynamo.config.recompile_limit = before


def test_a_marked_dimension_compiles_once():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    doubled = torch.compile(lambda values: values * 2, backend=backend)
    for size in (3, 4, 5):
        values = torch.ones(size)
        torch_private.maybe_mark_dynamic(values, 0)
        doubled(values)
    assert len(graphs) == 1


def test_many_tensors_are_copied_at_once_and_cast():
    destinations = [torch.zeros(2, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bfloat16)]
    torch_private.copy_all_(destinations, [torch.ones(2), torch.full((3,), 2.0)])
    assert [tensor.tolist() for tensor in destinations] == [[1.0] * 2, [2.0] * 3]


@pytest.mark.parametrize(
    'register', ['register_forward_hook', 'register_forward_pre_hook', 'register_full_backward_hook']
)
def test_hooks_are_detected(register):
    module = torch.nn.Linear(2, 2)
    assert not torch_private.has_hooks(module)
    handle = getattr(module, register)(lambda *_: None)
    assert torch_private.has_hooks(module)
    handle.remove()
    assert not torch_private.has_hooks(module)


@pytest.mark.parametrize('infinite', [False, True])
def test_a_fused_optimizer_skips_its_step(infinite):
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = torch.optim.AdamW([weight], fused=True)
    assert torch_private.takes_found_inf(optimizer)
    with torch_private.found_inf(optimizer, torch.tensor(float(infinite))):
        optimizer.step()
    assert torch.equal(weight, torch.ones(2)) == infinite
    assert not hasattr(optimizer, 'found_inf')


def test_an_optimizer_that_is_not_fused_takes_no_flag():
    assert not torch_private.takes_found_inf(torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], fused=False))


def test_torch_has_the_names_that_end_a_failed_capture():
    """What they do needs a GPU: tests/optimizations/cuda_graphs."""
    assert callable(torch._C.__dict__.get('_cuda_endAllocateToPool', print))
    if torch.backends.cuda.is_built():
        assert hasattr(torch._C, '_cuda_endAllocateToPool') and hasattr(torch._C, '_cuda_releasePool')


def test_meshes_forget_their_groups():
    mesh = DeviceMesh.__new__(DeviceMesh)
    mesh._pg_registry = {'group': object()}
    torch_private.release_mesh_groups([mesh, object()])
    assert mesh._pg_registry == {}


def test_a_module_decides_about_conversions():
    class KeepsItsType(torch_private.ConversionHook, torch.nn.Linear):
        def converted(self, before, after):
            return before.to(after.device)

    assert KeepsItsType(2, 2).to(torch.bfloat16).weight.dtype == torch.float32
    assert KeepsItsType(2, 2).half().weight.dtype == torch.float32


@pytest.mark.skipif(torch_private.SCALED_MM is None, reason='this torch has no torch._scaled_mm')
def test_scaled_mm_multiplies_with_scales():
    ones = torch.ones(16, 16).to(torch.float8_e4m3fn)
    scale = torch.tensor(0.5)
    out = torch_private.SCALED_MM(ones, ones.t(), scale, scale, out_dtype=torch.bfloat16)
    assert torch.equal(out, torch.full((16, 16), 4.0, dtype=torch.bfloat16))
