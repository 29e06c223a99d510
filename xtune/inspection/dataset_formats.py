"""`xtune list-dataset-format`: the example row and result of each map function, parsed from its docstring.

A docstring has a line `Row:` followed by a JSON object, then a line `Result:` followed by one line `role: "text"` per
message, up to an empty line. Other fields of a message follow its text as a JSON object. Further lines are
`tools: [...]`, or `ids: [...]` and `trained: [...]` for pretokenized rows. Adjacent JSON strings on consecutive lines
are concatenated.
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

_EXAMPLE = re.compile(r'^Row:\n(.+?)\nResult:\n(.+?)(?:\n\s*\n|\Z)', re.M | re.S)
_NEXT_STRING = re.compile(r'"\s*\n\s*"')
_ENTRY = re.compile(r'^\s*(\w+): ', re.M)


@dataclass(frozen=True)
class Format:
    """The docstring of a map function: a summary, an example row, and the result for this row."""

    name: str
    summary: str
    row: dict
    result: Conversation | Tokens

    def lines(self) -> list[str]:
        """Return the lines to print."""
        entries = [f'{name:<9}  {text}' for name, text in _entries(self.result)]
        head = [self.name, f'  {self.summary}', f'  row     {_json(self.row)}', f'  result  {entries[0]}']
        return head + [f'          {entry}' for entry in entries[1:]]


def formats(pattern: str = '') -> list[Format]:
    """Return the format with the name `pattern`; otherwise all whose name contains it or matches it as a glob.

    Raises:
        ConfigError: No format matches.
    """
    from ..data import map_fns  # noqa: F401  registers the map functions
    from ..registry import MAP_FNS

    builtin = sorted(name for name, fn in MAP_FNS.module_dict.items() if fn.__module__.startswith('xtune.'))
    wanted = pattern.lower().removesuffix('_map_fn')
    names = [wanted] if wanted in builtin else [n for n in builtin if wanted in n or fnmatch(n, wanted)]
    if not names:
        hint = did_you_mean(wanted, builtin) or '; `xtune list-dataset-format` lists all'
        raise ConfigError(f'no data set format matches `{pattern}`{hint}')
    return [described(name, MAP_FNS.module_dict[name]) for name in names]


def described(name: str, function: Callable) -> Format:
    """Parse the docstring of the map function `function`."""
    text = inspect.getdoc(function) or ''
    example = _EXAMPLE.search(text)
    assert example, f'the docstring of {function.__name__} has no `Row:` and `Result:`'
    row, result = (_NEXT_STRING.sub('', part) for part in example.groups())
    return Format(name, text.splitlines()[0], json.loads(row), _parsed(result))


def _parsed(result: str) -> Conversation | Tokens:
    fields = _ENTRY.split(result)[1:]
    entries = list(zip(fields[::2], fields[1::2], strict=True))
    lists = {name: json.loads(text) for name, text in entries if name in ('ids', 'trained', 'tools')}
    if 'ids' in lists:
        return Tokens(**lists)
    return Conversation([_message(name, text) for name, text in entries if name not in lists], lists.get('tools'))


def _message(role: str, text: str) -> dict:
    content, end = json.JSONDecoder().raw_decode(text)
    return {'role': role, 'content': content} | json.loads(text[end:].strip() or '{}')


def _entries(result: Conversation | Tokens) -> list[tuple[str, str]]:
    """Return the lines of a result as (name, text)."""
    if isinstance(result, Tokens):
        return [('ids', _json(result.ids)), ('trained', _json(result.trained))]
    entries = []
    for message in result.messages:
        rest = {key: value for key, value in message.items() if key not in ('role', 'content')}
        entries.append((message['role'], _json(message['content']) + (f' {_json(rest)}' if rest else '')))
    return entries + ([('tools', _json(result.tools))] if result.tools else [])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
