"""Hash the code of a map function: its module, and the user's modules that it imports, at any depth.

Modules are found by parsing import statements, including those inside functions; nothing is executed. The standard
library and installed packages are excluded. Data files that a function reads, and imports of computed names, are not
detected.
"""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from .captured_values import describe, reachable_functions

_INSTALLED = ('site-packages', 'dist-packages')
_IMPORT_FUNCTIONS = ('import_module', '__import__')
_THIS_PACKAGE = __name__.partition('.')[0]


def code_hash(function: Callable) -> tuple[str, bool]:
    """Return a hash of the source and captured values of `function`, and whether the source imports xtune.

    A function that imports xtune may depend on its map functions.
    """
    digest = hashlib.blake2b(repr(describe(function)).encode(), digest_size=16)
    names = [name for each in reachable_functions(function) if (name := getattr(each, '__module__', None))]
    files, uses_package = _source_files(names)
    for name, path in sorted(files.items()):
        digest.update(name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest(), uses_package


def _source_files(names: list[str]) -> tuple[dict[str, Path], bool]:
    """Return the files of the modules `names` and of the user's modules they import; and whether one imports xtune."""
    files: dict[str, Path] = {}
    pending, seen, uses_package = list(names), set(), False
    while pending:
        name = pending.pop()
        if name.partition('.')[0] == _THIS_PACKAGE:
            uses_package = True
            continue
        if name in seen:
            continue
        seen.add(name)
        pending += _parents(name)
        path, is_package = _file_of(name)
        if path is None or not (name in names or _is_user_file(path)):
            continue
        files[name] = path
        if path.suffix == '.py' and _is_user_file(path):
            package = name if is_package else name.rpartition('.')[0]
            pending += _imports(path, package, _stamp(path))
    return files, uses_package


def _parents(name: str) -> list[str]:
    """Return the packages that Python imports before the module `name`."""
    parts = name.split('.')
    return ['.'.join(parts[:count]) for count in range(1, len(parts))]


def _file_of(name: str) -> tuple[Path | None, bool]:
    """Return the file of the module `name` (None if it has none or does not exist), and whether it is a package."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, '__file__', None)
        return (Path(file) if file and Path(file).is_file() else None), hasattr(module, '__path__')
    spec = _spec_of(name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None, False
    return Path(spec.origin), spec.submodule_search_locations is not None


def _spec_of(name: str) -> ModuleSpec | None:
    """Return the spec of a module that is not loaded, without importing its parent packages."""
    spec, parent_path = None, None
    for part in [*_parents(name), name]:
        try:
            spec = PathFinder.find_spec(part, parent_path)
        except (ImportError, ValueError, AttributeError):  # raised by an import hook
            return None
        if spec is None:
            return None
        parent_path = spec.submodule_search_locations
        if parent_path is None and part != name:  # a parent that is no package has no submodules
            return None
    return spec


@lru_cache(maxsize=1)
def _standard_library() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in ('stdlib', 'platstdlib'))


def _is_user_file(path: Path) -> bool:
    """Tell whether a file belongs neither to the standard library nor to an installed package."""
    path = path.resolve()
    return not set(path.parts) & set(_INSTALLED) and not any(
        path.is_relative_to(folder) for folder in _standard_library()
    )


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4096)
def _imports(path: Path, package: str, stamp: tuple[int, int]) -> tuple[str, ...]:
    """Return the modules a source file may import; `package` resolves relative imports, `stamp` keys the cache."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # Python could not import it either
        return ()
    return tuple(dict.fromkeys(name for node in ast.walk(tree) for name in _imported_by(node, package) if name))


def _imported_by(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base_parts = package.split('.') if package else []
        if node.level > 1:
            base_parts = base_parts[: 1 - node.level]
        base = '.'.join([*(base_parts if node.level else []), *([node.module] if node.module else [])])
        yield base
        yield from (f'{base}.{alias.name}' if base else alias.name for alias in node.names)  # a name may be a module
    elif isinstance(node, ast.Call):
        called = getattr(node.func, 'attr', getattr(node.func, 'id', None))
        first = node.args[0] if node.args else None
        if called in _IMPORT_FUNCTIONS and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value.lstrip('.')
            if first.value.startswith('.') and package:
                yield f'{package}.{first.value.lstrip(".")}'
