"""`xtune list-dataset-format`: the rows that the map functions take and what they make of them, from their docstrings.

A docstring has a line `Row:` and below it a JSON object, then a line `Result:` and below it `role: "text"` a line, up
to an empty line. What a message holds besides follows its text as a JSON object. Other lines are `tools: [...]`, or
`ids: [...]` and `trained: [...]` for rows that are token ids. A JSON string may go on as another one in the next line.
"""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..messages import Conversation, Tokens

_SHOWN = re.compile(r'^Row:\n(.+?)\nResult:\n(.+?)(?:\n\s*\n|\Z)', re.M | re.S)
_NEXT_STRING = re.compile(r'"\s*\n\s*"')
_ENTRY = re.compile(r'^\s*(\w+): ', re.M)


@dataclass(frozen=True)
class Format:
    """What the docstring of a map function says: a summary, a row, and what the function returns for it."""

    name: str
    summary: str
    row: dict
    result: Conversation | Tokens

    def lines(self) -> list[str]:
        """Return what a person reads."""
        entries = [f'{name:<9}  {text}' for name, text in _entries(self.result)]
        head = [self.name, f'  {self.summary}', f'  row     {_json(self.row)}', f'  result  {entries[0]}']
        return head + [f'          {entry}' for entry in entries[1:]]


def formats(pattern: str = '') -> list[Format]:
    """Return the format called `pattern`, or else those whose name contains it or matches it as a glob, by name.

    Raises:
        ConfigError: There is none.
    """
    from ..data import map_fns  # noqa: F401  registers them
    from ..registry import MAP_FNS

    ours = sorted(name for name, fn in MAP_FNS.module_dict.items() if fn.__module__.startswith('xtune.'))
    wanted = pattern.lower().removesuffix('_map_fn')
    names = [wanted] if wanted in ours else [n for n in ours if wanted in n or fnmatch(n, wanted)]
    if not names:
        hint = did_you_mean(wanted, ours) or '; `xtune list-dataset-format` shows all'
        raise ConfigError(f'no data set format matches `{pattern}`{hint}')
    return [described(name, MAP_FNS.module_dict[name]) for name in names]


def described(name: str, function: Callable) -> Format:
    """Return what the docstring of the map function `function` says."""
    text = inspect.getdoc(function) or ''
    shown = _SHOWN.search(text)
    assert shown, f'the docstring of {function.__name__} shows no `Row:` and `Result:`'
    row, result = (_NEXT_STRING.sub('', part) for part in shown.groups())
    return Format(name, text.splitlines()[0], json.loads(row), _parsed(result))


def _parsed(result: str) -> Conversation | Tokens:
    pieces = _ENTRY.split(result)[1:]
    entries = list(zip(pieces[::2], pieces[1::2], strict=True))
    lists = {name: json.loads(text) for name, text in entries if name in ('ids', 'trained', 'tools')}
    if 'ids' in lists:
        return Tokens(**lists)
    return Conversation([_message(name, text) for name, text in entries if name not in lists], lists.get('tools'))


def _message(role: str, text: str) -> dict:
    content, end = json.JSONDecoder().raw_decode(text)
    return {'role': role, 'content': content} | json.loads(text[end:].strip() or '{}')


def _entries(result: Conversation | Tokens) -> list[tuple[str, str]]:
    """Return the lines of a result as pairs of name and text."""
    if isinstance(result, Tokens):
        return [('ids', _json(result.ids)), ('trained', _json(result.trained))]
    entries = []
    for message in result.messages:
        rest = {key: value for key, value in message.items() if key not in ('role', 'content')}
        entries.append((message['role'], _json(message['content']) + (f' {_json(rest)}' if rest else '')))
    return entries + ([('tools', _json(result.tools))] if result.tools else [])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
