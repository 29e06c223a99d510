"""The sections of a config file as source text: quoted with new values, and the comments beside their options."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .lazy import comparable, read_text, to_plain
from .literals import are_names, literal


@dataclass(frozen=True)
class Comments:
    """The comments of one option in a file: the lines above it, and the one behind it."""

    above: tuple[str, ...] = ()
    behind: str = ''


@dataclass
class SourceSection:
    """A top-level assignment of a config file.

    Args:
        source: The file.
        node: The assignment.
        value: Its value right after the assignment.
        comments: The comments of the file by line; True for a line with nothing else.
    """

    source: bytes
    node: ast.Assign
    value: Any
    comments: dict[int, tuple[str, bool]]
    lines: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.source.splitlines(keepends=True)

    def comments_of(self, *path: str | int) -> Comments:
        """Return the comments of an option: of the section itself, of a key, or of a key of a data set in a list."""
        node: ast.AST | None = self.node
        for step in path:
            value = node.value if isinstance(node, (ast.Assign, ast.keyword)) else node
            if isinstance(value, ast.List) and isinstance(step, int) and step < len(value.elts):
                node = value.elts[step]
            elif isinstance(value, ast.Call):
                node = next((keyword for keyword in value.keywords if keyword.arg == step), None)
            else:
                node = None
            if node is None:
                return Comments()
        first, above = node.lineno - 1, []
        while self.comments.get(first, ('', False))[1]:
            above.insert(0, self.comments[first][0])
            first -= 1
        behind, alone = self.comments.get(node.end_lineno, ('', True))
        return Comments(tuple(above), '' if alone else behind)

    def render(self, new: Any) -> str:
        """Return the text of the assignment with the values of `new`; comments within it are kept."""
        end = self._offset(self.node.end_lineno, self.node.end_col_offset)
        comment = re.match(rb'[ \t]*#[^\r\n]*', self.source[end:])  # at the end of its last line
        end += comment.end() if comment else 0
        out = b''
        for start, stop, text in sorted(self._edits(self.node.value, self.value, new), reverse=True):
            out = text.encode() + self.source[stop:end] + out
            end = start
        return (self.source[self._offset(self.node.lineno, 0) : end] + out).decode()

    def _offset(self, line: int, column: int) -> int:
        return sum(map(len, self.lines[: line - 1])) + column

    def _edits(self, node: ast.expr, old: Any, new: Any) -> Iterator[tuple[int, int, str]]:
        """Yield (start, stop, text) in bytes for each value of `new` that differs from `old`."""
        if comparable(old) == comparable(new):
            return
        start, stop = self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)
        if isinstance(node, ast.List) and isinstance(new, list) and len(node.elts) == len(old) == len(new):
            for item in zip(node.elts, old, new, strict=True):
                yield from self._edits(*item)
            return
        both_dicts = isinstance(old, dict) and isinstance(new, dict)
        if not (both_dicts and set(old) <= set(new) and self._is_block(node) and are_names(new)):
            line = self.lines[node.lineno - 1]
            yield start, stop, literal(new, len(line) - len(line.lstrip()))
            return
        for keyword in node.keywords:
            yield from self._edits(keyword.value, old[keyword.arg], new[keyword.arg])
        indent = node.keywords[0].col_offset
        added = [f'{key}={literal(new[key], indent)}' for key in new if key not in old]
        if added:  # before the closing bracket, one per line
            last = node.keywords[-1].value
            behind = self._offset(last.end_lineno, last.end_col_offset)
            if not self.source[behind:stop].lstrip().startswith(b','):
                yield behind, behind, ','
            at = self._offset(node.end_lineno, 0)
            yield at, at, ''.join(f'{" " * indent}{text},\n' for text in added)

    def _is_block(self, node: ast.expr) -> bool:
        """Return whether `node` is a dict(...) of plain keywords whose closing bracket has its own line."""
        if not isinstance(node, ast.Call) or not node.keywords or any(k.arg is None for k in node.keywords):
            return False
        last = node.keywords[-1].value
        behind = self.source[self._offset(last.end_lineno, last.end_col_offset) :].lstrip()
        alone = not self.lines[node.end_lineno - 1][: node.end_col_offset - 1].strip()
        return alone and not node.args and behind[:1] in (b',', b'#', b')')


def source_sections(config: Path) -> dict[str, SourceSection]:
    """Map a section's name to the assignment that made it: in the config itself, or in a part that it imports."""
    inherited: dict[str, SourceSection] = {}
    tree = ast.parse(config.read_text(encoding='utf-8'))
    for block in (node for node in tree.body if isinstance(node, ast.With)):
        for base in block.body:
            path = config.parents[base.level - 1].joinpath(*base.module.split('.')).with_suffix('.py')
            wanted = {alias.name for alias in base.names}
            sections = _part_sections(path, path.stat().st_mtime_ns)
            inherited |= {name: section for name, section in sections.items() if name in wanted or '*' in wanted}
    return _sections_of(config) | inherited  # the text of a part has the comments


@lru_cache(maxsize=512)
def _part_sections(path: Path, changed: int) -> dict[str, SourceSection]:
    """Return the sections of a part; `changed` is its mtime (ns)."""
    return _sections_of(path)


def _sections_of(path: Path) -> dict[str, SourceSection]:
    source = path.read_bytes()
    tree = ast.parse(source)
    assignments: dict[str, ast.Assign] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            # A preset sets single values anew below its parts; the first assignment has the comments.
            assignments.setdefault(node.targets[0].id, node)
    if not assignments:
        return {}
    imports = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom)) and not getattr(n, 'level', 0)]
    values = to_plain(read_text('\n'.join(ast.unparse(node) for node in (*imports, *assignments.values())) + '\n'))
    comments = _comments(source)
    return {
        name: SourceSection(source, node, values[name], comments)
        for name, node in assignments.items()
        if name in values
    }


def _comments(source: bytes) -> dict[int, tuple[str, bool]]:
    """Map a line number to its comment without `# `, and whether the line holds nothing else."""
    return {
        token.start[0]: (token.string.lstrip('#').strip(), not token.line[: token.start[1]].strip())
        for token in tokenize.tokenize(io.BytesIO(source).readline)
        if token.type == tokenize.COMMENT
    }
