"""Read a preset whose parts have been read before; most of the time that mmengine takes for one goes into its parts.

Hundreds of presets share some hundred parts. What is not of a preset's plain form is left to mmengine.
"""

import ast
from functools import lru_cache
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..compat.mmengine_private import reading_lazily
from .lazy import from_namespace, part_names


def read(path: Path) -> Config | None:
    """Return the config at `path`, or None where it is not imports from parts followed by assignments.

    Raises:
        KeyError: A part lacks a name that is imported from it.
        Exception: What the file's own statements raise.
    """
    source = path.read_text(encoding='utf-8')
    tree = ast.parse(source, str(path))
    imports, statements = _split(tree.body)
    if not imports:
        return None
    found = [_found(node, path) for node in imports]
    if None in found:
        return None
    names: dict = {}
    with reading_lazily():
        for values, _ in found:
            # Built anew, as a preset changes what it imports.
            names |= {name: ConfigDict(value=value)['value'] for name, value in values.items()}
        # The preset's own code, run as mmengine would run it.
        exec(compile(ast.Module(statements, []), str(path), 'exec'), names)
        return from_namespace(names, set().union(*(hidden for _, hidden in found)), path)


def _found(node: ast.ImportFrom, path: Path) -> tuple[dict, set[str]] | None:
    """Return the plain values that an import of the preset `path` brings, and which names of its part are imports."""
    part = path.parents[node.level - 1].joinpath(*node.module.split('.')).with_suffix('.py')
    found = _part(part, part.stat().st_mtime_ns) if part.is_file() else None
    if found is None:
        return None
    values, hidden = found
    wanted = {a.asname or a.name: a.name for a in node.names}
    return (values if '*' in wanted else {name: values[origin] for name, origin in wanted.items()}), hidden


def _split(body: list[ast.stmt]) -> tuple[list[ast.ImportFrom], list[ast.stmt]]:
    """Return a plain preset's imports from parts and its other statements; no imports where it has another form."""
    imports, statements = [], []
    for node in body:
        if isinstance(node, ast.With):
            imports += node.body
        elif not (isinstance(node, ast.ImportFrom) and node.module == 'mmengine.config'):
            statements.append(node)
    plain = all(isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr)) for node in statements)
    relative = all(isinstance(node, ast.ImportFrom) and node.level and node.module for node in imports)
    return (imports, statements) if plain and relative else ([], [])


@lru_cache(maxsize=512)
def _part(path: Path, changed: int) -> tuple[dict, set[str]] | None:
    """Return a part's names and which of them are imports; `changed` is when the file was (ns). None: it has parts."""
    if 'read_base' in path.read_text(encoding='utf-8'):
        return None
    return part_names(Config.fromfile(str(path), lazy_import=True))
