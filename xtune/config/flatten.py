"""Write a preset and the parts it is made of as one self-contained, commented file.

A section that the preset leaves as its part wrote it is copied as text, with its comments. In a section that the
preset or an option changes, only the changed values are rewritten. The result is read back and compared before it is
returned, so a copy never means something else than the preset.
"""

import ast
import math
import re
from collections.abc import Iterable
from functools import lru_cache
from keyword import iskeyword
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .lazy import comparable, import_of, is_lazy, read_text, root, to_plain, walk
from .load import load
from .sections import SECTIONS

_SIGNATURE = 'Written by `xtune copy-cfg'


def flatten(preset: Path, options: dict | None = None) -> str:
    """Return the text of one file that loads to `load(preset, options)`.

    Raises:
        ConfigError: The preset or an option is wrong.
    """
    preset = Path(preset)
    final = to_plain(load(preset, options))
    parts = _quotable_sections(preset)
    blocks = []
    for name in SECTIONS:
        if name in final:
            quoted = parts[name].render(final[name]) if name in parts else None
            blocks.append(quoted or f'{name} = {literal(final[name], 0)}')
    text = '\n'.join([_docstring(preset), *_imports(final), '', '\n\n'.join(blocks), ''])
    again = comparable(to_plain(read_text(text)))
    wanted = comparable(final)
    changed = [name for name in {*again, *wanted} if again.get(name) != wanted.get(name)]
    assert not changed, f'{preset}: {changed} changed on the way into one file'
    return text


class _Section:
    """One top-level assignment: its source, its syntax tree, and the value it had there."""

    def __init__(self, source: bytes, node: ast.Assign, value: Any) -> None:
        self.node, self.value, self.source = node, value, source
        self.lines = source.splitlines(keepends=True)
        first = node.lineno - 1
        while first and self.lines[first - 1].startswith(b'#'):
            first -= 1
        self.start = sum(map(len, self.lines[:first]))
        self.end = self._at(node.end_lineno, node.end_col_offset)
        comment = re.match(rb'[ \t]*#[^\r\n]*', source[self.end :])  # at the end of its last line
        self.end += comment.end() if comment else 0

    def _at(self, line: int, column: int) -> int:
        return sum(map(len, self.lines[: line - 1])) + column

    def render(self, new: Any) -> str:
        """Return the assignment's text with the values of `new`, comments kept."""
        edits = sorted(self._edits(self.node.value, self.value, new), reverse=True)
        out, end = b'', self.end
        for start, stop, text in edits:
            out = text.encode() + self.source[stop:end] + out
            end = start
        return (self.source[self.start : end] + out).decode()

    def _edits(self, node: ast.expr, old: Any, new: Any):
        """Yield (start, stop, text) in bytes for each value of `new` that differs from `old`."""
        if comparable(old) == comparable(new):
            return
        start, stop = self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)
        if isinstance(node, ast.List) and isinstance(new, list) and len(node.elts) == len(old) == len(new):
            for item in zip(node.elts, old, new, strict=True):
                yield from self._edits(*item)
            return
        both_dicts = isinstance(old, dict) and isinstance(new, dict)
        if not (both_dicts and set(old) <= set(new) and self._is_block(node) and _are_names(new)):
            line = self.lines[node.lineno - 1]
            yield start, stop, literal(new, len(line) - len(line.lstrip()))
            return
        for keyword in node.keywords:
            yield from self._edits(keyword.value, old[keyword.arg], new[keyword.arg])
        indent = node.keywords[0].col_offset
        added = [f'{key}={literal(new[key], indent)}' for key in new if key not in old]
        if added:  # before the closing bracket, one to a line
            last = node.keywords[-1].value
            behind = self._at(last.end_lineno, last.end_col_offset)
            if not self.source[behind:stop].lstrip().startswith(b','):
                yield behind, behind, ','
            at = self._at(node.end_lineno, 0)
            yield at, at, ''.join(f'{" " * indent}{text},\n' for text in added)

    def _is_block(self, node: ast.expr) -> bool:
        """Tell whether `node` is a dict(...) of plain keywords whose closing bracket has a line to itself."""
        if not isinstance(node, ast.Call) or not node.keywords or any(k.arg is None for k in node.keywords):
            return False
        last = node.keywords[-1].value
        behind = self.source[self._at(last.end_lineno, last.end_col_offset) :].lstrip()
        alone = not self.lines[node.end_lineno - 1][: node.end_col_offset - 1].strip()
        return alone and not node.args and behind[:1] in (b',', b'#', b')')


def _quotable_sections(preset: Path) -> dict[str, _Section]:
    """Map a section's name to the assignment that made it: in a part, or in the file itself."""
    found = {}
    tree = ast.parse(preset.read_text(encoding='utf-8'))
    for block in (node for node in tree.body if isinstance(node, ast.With)):
        for base in block.body:
            path = preset.parents[base.level - 1].joinpath(*base.module.split('.')).with_suffix('.py')
            wanted = {alias.name for alias in base.names}
            sections = _part_sections(path, path.stat().st_mtime_ns)
            found |= {name: section for name, section in sections.items() if name in wanted or '*' in wanted}
    return _own_sections(preset) | found  # a part's text has the comments


@lru_cache(maxsize=512)
def _part_sections(path: Path, changed: int) -> dict[str, _Section]:
    """Return the sections of a part, which hundreds of presets share; `changed` is when the file was (ns)."""
    return _own_sections(path)


def _own_sections(path: Path) -> dict[str, _Section]:
    """Return the sections assigned in `path` itself, with the values they have right after the assignment."""
    source = path.read_bytes()
    tree = ast.parse(source)
    assignments = {
        node.targets[0].id: node
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    if not assignments:
        return {}
    imports = [
        node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, 'level', 0)
    ]
    kept = [ast.unparse(node) for node in (*imports, *assignments.values())]
    values = to_plain(read_text('\n'.join(kept) + '\n'))
    return {name: _Section(source, node, values[name]) for name, node in assignments.items() if name in values}


def _docstring(preset: Path) -> str:
    doc = ast.get_docstring(ast.parse(preset.read_text(encoding='utf-8'))) or preset.stem
    doc = doc.split(_SIGNATURE)[0].rstrip().replace('\\', '\\\\').replace('"""', "'''")
    return f'"""{doc}\n\n{_SIGNATURE} {preset.stem}`; edit it and run `xtune train` on it.\n"""'


def _imports(final: dict) -> list[str]:
    wanted: dict[str, set] = {}
    for lazy in walk(final):
        module, name = import_of(lazy)
        wanted.setdefault(module, set()).add(name)
    lines: dict[bool, list] = {False: [], True: []}  # keyed by: is it ours
    for module in sorted(wanted):
        names = ', '.join(sorted(wanted[module]))
        lines[module.split('.')[0] == 'xtune'].append(f'from {module} import {names}')
    blocks = [block for block in (lines[False], lines[True]) if block]
    return '\n\n'.join('\n'.join(block) for block in blocks).split('\n')


def literal(value: Any, indent: int) -> str:
    """Return `value` as Python source, its continuation lines indented below `indent` columns."""
    if is_lazy(value):
        return root(value)[1]
    if isinstance(value, dict):
        pad = ' ' * (indent + 4)
        if not _are_names(value):
            items = [f'{pad}{k!r}: {literal(v, indent + 4)},\n' for k, v in value.items()]
            return '{\n' + ''.join(items) + ' ' * indent + '}'
        items = [f'{pad}{k}={literal(v, indent + 4)},\n' for k, v in value.items()]
        return 'dict(\n' + ''.join(items) + ' ' * indent + ')' if items else 'dict()'
    if isinstance(value, (list, tuple)):
        inner = ', '.join(literal(v, indent) for v in value)
        if isinstance(value, list):
            return f'[{inner}]'
        return f'({inner},)' if len(value) == 1 else f'({inner})'
    if isinstance(value, float) and math.isinf(value):
        return '1e999' if value > 0 else '-1e999'
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    raise ConfigError(f'a config holds data and imported names, not {type(value).__name__} {value!r}')


def _are_names(keys: Iterable) -> bool:
    return all(isinstance(k, str) and k.isidentifier() and not iskeyword(k) for k in keys)
