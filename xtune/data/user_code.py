"""A hash of the code behind a map function: its module, and each module of the user's that this imports, at any depth.

Modules are found by reading the import statements, also those inside functions; nothing is run. Left out are the
standard library and installed packages. What a function reads from data files, or imports by a name that it computes,
is not seen.
"""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from .held_values import functions_in, held

_INSTALLED = ('site-packages', 'dist-packages')
_IMPORTING = ('import_module', '__import__')
_THIS_PACKAGE = __name__.partition('.')[0]


def code_hash(function: Callable) -> tuple[str, bool]:
    """Return a hash of the source that `function` depends on and of the values that it holds, and whether that source
    imports xtune, whose map functions it may use.
    """
    digest = hashlib.blake2b(repr(held(function)).encode(), digest_size=16)
    names = [name for each in functions_in(function) if (name := getattr(each, '__module__', None))]
    files, uses_package = _reached(names)
    for name, path in sorted(files.items()):
        digest.update(name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest(), uses_package


def _reached(names: list[str]) -> tuple[dict[str, Path], bool]:
    """Return the files of the modules `names`, wherever they lie, and of the user's own modules that they import; and
    whether one of them imports xtune.
    """
    found: dict[str, Path] = {}
    waiting, seen, uses_package = list(names), set(), False
    while waiting:
        name = waiting.pop()
        if name.partition('.')[0] == _THIS_PACKAGE:
            uses_package = True
            continue
        if name in seen:
            continue
        seen.add(name)
        waiting += _parents(name)
        path, is_package = _file_of(name)
        if path is None or not (name in names or _is_own(path)):
            continue
        found[name] = path
        if path.suffix == '.py' and _is_own(path):
            package = name if is_package else name.rpartition('.')[0]
            waiting += _imports(path, package, _stamp(path))
    return found, uses_package


def _parents(name: str) -> list[str]:
    """Return the packages that are imported before the module `name`."""
    parts = name.split('.')
    return ['.'.join(parts[:count]) for count in range(1, len(parts))]


def _file_of(name: str) -> tuple[Path | None, bool]:
    """Return the file of the module `name`, and whether it is a package; None: it has no file, or there is none."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, '__file__', None)
        return (Path(file) if file and Path(file).is_file() else None), hasattr(module, '__path__')
    spec = _spec_of(name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None, False
    return Path(spec.origin), spec.submodule_search_locations is not None


def _spec_of(name: str) -> ModuleSpec | None:
    """Return where a module that is not loaded would come from, without running the packages above it."""
    spec, above = None, None
    for part in [*_parents(name), name]:
        try:
            spec = PathFinder.find_spec(part, above)
        except (ImportError, ValueError, AttributeError):  # of an import hook
            return None
        if spec is None:
            return None
        above = spec.submodule_search_locations
        if above is None and part != name:  # a module has no modules below it
            return None
    return spec


@lru_cache(maxsize=1)
def _standard() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in ('stdlib', 'platstdlib'))


def _is_own(path: Path) -> bool:
    """Tell whether a file belongs to the user: neither to the standard library nor to an installed package."""
    path = path.resolve()
    return not set(path.parts) & set(_INSTALLED) and not any(path.is_relative_to(folder) for folder in _standard())


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4096)
def _imports(path: Path, package: str, stamp: tuple[int, int]) -> tuple[str, ...]:
    """Return the modules that a source file may import; `package` is the one that relative imports start from."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # Python could not import it either
        return ()
    return tuple(dict.fromkeys(name for node in ast.walk(tree) for name in _imported_by(node, package) if name))


def _imported_by(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split('.') if package else []
        if node.level > 1:
            above = above[: 1 - node.level]
        base = '.'.join([*(above if node.level else []), *([node.module] if node.module else [])])
        yield base
        yield from (f'{base}.{alias.name}' if base else alias.name for alias in node.names)  # a name may be a module
    elif isinstance(node, ast.Call):
        called = getattr(node.func, 'attr', getattr(node.func, 'id', None))
        first = node.args[0] if node.args else None
        if called in _IMPORTING and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value.lstrip('.')
            if first.value.startswith('.') and package:
                yield f'{package}.{first.value.lstrip(".")}'
