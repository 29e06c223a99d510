"""Private names of libraries are in xtune/compat and nowhere else in the package."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import xtune

PACKAGE = Path(xtune.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob('*.py') if path.parent.name != 'compat')
LIBRARIES = ('torch', 'functorch', 'transformers', 'mmengine', 'deepspeed', 'peft', 'datasets')
# Documented in spite of their names.
PUBLIC = {'_exit', '_replace', '_asdict', '_fields'}


def is_private(name: str) -> bool:
    return name.startswith('_') and not name.startswith('__') and name not in PUBLIC


def private_imports(tree: ast.Module) -> Iterator[str]:
    """Yield imports whose dotted name has a private part."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split('.')
            if parts[0] == 'functorch' or (parts[0] in LIBRARIES and any(map(is_private, parts))):
                yield name


def private_attributes(tree: ast.Module) -> Iterator[str]:
    """Yield accesses to private attributes of anything but `self`, unless this file defines such an attribute."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and hasattr(node.target, 'id')}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ('self', 'cls'):
            own.add(node.attr)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ('getattr', 'hasattr', 'setattr', 'delattr'):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(name.value) and name.value not in own:
                yield ast.unparse(node)


@pytest.mark.integration
def test_modules_outside_of_compat_use_no_private_names():
    found = {}
    for path in FILES:
        tree = ast.parse(path.read_text('utf-8'))
        if names := sorted({*private_imports(tree), *private_attributes(tree)}):
            found[str(path.relative_to(PACKAGE))] = names
    assert found == {}


def test_the_search_finds_private_names():
    code = """
import functorch
from torch._dynamo import config
torch._scaled_mm(a, b)
getattr(model, '_supports_sdpa', True)
self._own, other._own, os._exit(1)
"""
    tree = ast.parse(code)
    assert list(private_imports(tree)) == ['functorch', 'torch._dynamo.config']
    assert set(private_attributes(tree)) == {'torch._scaled_mm', "getattr(model, '_supports_sdpa', True)"}


def test_classes_outside_of_compat_override_nothing_private():
    found = []
    for module in pkgutil.walk_packages(xtune.__path__, 'xtune.'):
        if module.name.startswith('xtune.compat') or module.name.endswith('__main__'):
            continue
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__ != module.name:
                continue
            methods = {key for key, value in vars(kind).items() if is_private(key) and inspect.isfunction(value)}
            bases = [base for base in kind.__mro__[1:] if base.__module__.partition('.')[0] in LIBRARIES]
            found += [f'{module.name}.{name}.{key}' for key in sorted(methods) if any(hasattr(b, key) for b in bases)]
    assert found == []
