"""What plans need of torch beyond its public parts is there and does what they rely on, in this release of torch."""

import ast
from pathlib import Path

import torch

import xtune.planning
from xtune.planning.internals import FakeTensorMode, halved, is_operation, name_of, storage_key, takes_a_list

PRIVATE = ('functorch', 'torch._', 'torch.utils._')


def test_only_one_module_names_private_parts_of_torch():
    for path in Path(xtune.planning.__file__).parent.glob('*.py'):
        tree = ast.parse(path.read_text('utf-8'))
        names = [node.module or '' for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        found = [name for name in names if name.startswith(PRIVATE) or '._schema' in name or '._cdata' in name]
        assert bool(found) == (path.name == 'internals.py'), (path.name, found)


def test_storages_are_told_apart_with_values_and_without():
    for mode in (FakeTensorMode(), torch.no_grad()):
        with mode:
            one, other = torch.ones(4), torch.ones(4)
            assert storage_key(one) == storage_key(one[1:]) != storage_key(other)


def test_operations_have_names():
    add = torch.ops.aten.add.Tensor
    assert is_operation(add) and name_of(add) == 'aten::add' and not is_operation(len) and not is_operation('add')


def halves(recomputed):
    """Return how many tensors the forward half of two products and a sine hands to the backward half."""
    halves, seen = {}, []

    def stands_for(name):
        def make(module):
            halves[name] = module
            return takes_a_list(lambda given: module(*given))

        return make

    def function(left, right):
        return (torch.tanh(left @ right) @ right).sum()

    made = halved(function, stands_for('forward'), stands_for('backward'), seen.append, recomputed)
    left, right = torch.randn(8, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = [torch.ones(8, 8, requires_grad=True) for _ in range(2)]
        made(*fake)
    made(left, right).backward()
    plain = [one.detach().requires_grad_() for one in (left, right)]
    function(*plain).backward()
    for one, right_one in zip((left, right), plain, strict=True):
        torch.testing.assert_close(one.grad, right_one.grad)
    assert set(halves) == {'forward', 'backward'} and seen
    # Its result, and what it keeps.
    return [node.meta['val'].shape for node in list(seen[0].graph.nodes)[-1].args[0]][1:]


def test_a_graph_has_the_halves_that_torch_compile_makes():
    """Kept: both arguments and what stands between the products. Marked as recomputed: the arguments alone."""
    assert len(halves(False)) == 3 and len(halves(True)) == 2
