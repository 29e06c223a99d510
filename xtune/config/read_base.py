"""Read a config that imports its sections from parts (`with read_base()`) and keep the parts in memory.

A run reads its config several times, and most of the time that mmengine takes goes into the parts. A config of any
other form is left to mmengine.
"""

import ast
from functools import lru_cache
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..compat.mmengine_private import reading_lazily
from .deprecated import RENAMED, note
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
    parts = [_imported(node, path) for node in imports]
    if None in parts:
        return None
    names: dict = {}
    with reading_lazily():
        for values, _ in parts:
            # New objects, as the config changes what it imports.
            names |= {name: ConfigDict(value=value)['value'] for name, value in values.items()}
        # The file's own statements, run as mmengine would run them.
        exec(compile(ast.Module(statements, []), str(path), 'exec'), names)
        return from_namespace(names, set().union(*(hidden for _, hidden in parts)), path)


def _imported(node: ast.ImportFrom, path: Path) -> tuple[dict, set[str]] | None:
    """Return the values that an import from a part brings, and which names of the part are imports; None as `_part`."""
    part = path.parents[node.level - 1].joinpath(*node.module.split('.')).with_suffix('.py')
    content = _part(part, part.stat().st_mtime_ns) if part.is_file() else None
    if content is None:
        return None
    values, hidden = content
    wanted = {a.asname or a.name: a.name for a in node.names}
    if '*' in wanted:
        return values, hidden
    imported = {}
    for name, origin in wanted.items():
        new = RENAMED.get(origin) if origin not in values else None
        if new in values:
            note(str(path), origin, new)
            name, origin = (new if name == origin else name), new
        imported[name] = values[origin]
    return imported, hidden


def _split(body: list[ast.stmt]) -> tuple[list[ast.ImportFrom], list[ast.stmt]]:
    """Return the imports from parts and the other statements; no imports where the file has another form."""
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
    """Return a part's names and which of them are imports; None: it has parts itself. `changed`: its mtime (ns)."""
    if 'read_base' in path.read_text(encoding='utf-8'):
        return None
    return part_names(Config.fromfile(str(path), lazy_import=True))
