"""Read sections of the flat config in a checkpoint as plain values, without executing it."""

import ast
from typing import Any

from .deprecated import current_module, rename_sections


def stored_sections(text: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the sections `names` that the flat config `text` assigns; imported names become `'module.name'`.

    Text that is not Python, or assigns none of them, gives an empty dict.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {}
    imports = [(node.module, alias) for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    known = {alias.asname or alias.name: f'{current_module(module or "")}.{alias.name}' for module, alias in imports}
    sections: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            sections[node.targets[0].id] = _value(node.value, known)
    rename_sections(sections, 'the checkpoint', quiet=True)
    return {name: value for name, value in sections.items() if name in names}


def _value(node: ast.expr, known: dict[str, str]) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {keyword.arg: _value(keyword.value, known) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key, known) if key else None: _value(value, known) for key, value in pairs}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item, known) for item in node.elts]
    if isinstance(node, (ast.Name, ast.Attribute)):
        first, dot, rest = ast.unparse(node).partition('.')
        return known.get(first, first) + dot + rest
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
