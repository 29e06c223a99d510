"""The private parts of torch that planning needs exist, and behave as it relies on, in this release of torch."""

import ast
from pathlib import Path

import torch

import xtune.planning
from xtune.planning.internals import FakeTensorMode, name_of, storage_key

PRIVATE = ('functorch', 'torch._', 'torch.utils._')


def test_only_one_module_names_private_parts_of_torch():
    for path in Path(xtune.planning.__file__).parent.glob('*.py'):
        tree = ast.parse(path.read_text('utf-8'))
        names = [node.module or '' for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        private = [name for name in names if name.startswith(PRIVATE) or '._schema' in name or '._cdata' in name]
        assert bool(private) == (path.name == 'internals.py'), (path.name, private)


def test_storages_have_different_keys_with_and_without_values():
    for mode in (FakeTensorMode(), torch.no_grad()):
        with mode:
            one, other = torch.ones(4), torch.ones(4)
            assert storage_key(one) == storage_key(one[1:]) != storage_key(other)


def test_operations_have_names():
    assert name_of(torch.ops.aten.add.Tensor) == 'aten::add'
