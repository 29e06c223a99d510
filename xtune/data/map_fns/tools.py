"""Tools on offer and calls of them, in the one form that chat templates take.

    tool   {"type": "function", "function": {"name": "add", "description": "...", "parameters": {...}}}
    call   {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}

A bare {"name": ...} is read as the function itself, and JSON in a string as what it holds.
"""

import json
from typing import Any

from ..conversation import RowError
from .columns import is_empty


def offered(row: dict) -> list[dict] | None:
    """Return the tools of column `tools` (or `functions`), None if there are none.

    Raises:
        RowError: The column holds no JSON, no list, or a tool without a name.
    """
    name = next((name for name in ('tools', 'functions') if not is_empty(row.get(name))), None)
    if name is None:
        return None
    tools = from_json(row[name], f'column `{name}` is not JSON', '')
    if not isinstance(tools, list):
        raise RowError(f'column `{name}` is not a list of tools', f'it holds a {type(tools).__name__}')
    return [_tool(tool, f'tool {number}') for number, tool in enumerate(tools, 1)] or None


def calls(value: Any, place: str) -> list[dict]:
    """Return the calls in `value`: one or a list, as objects or as JSON; `place` names the message in errors.

    An `id` is kept. Arguments that are no JSON object stay a string.

    Raises:
        RowError: Not JSON, or a call without a name.
    """
    value = from_json(value, 'a tool call is not JSON', place)
    return [_call(call, place) for call in (value if isinstance(value, list) else [value])]


def from_json(value: Any, reason: str, place: str) -> Any:
    """Return what a JSON string holds; what is no string is returned as it is.

    Raises:
        RowError: With `reason`, if the string is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(reason, f'{place}{": " if place else ""}{error}; it starts {value[:40]!r}') from error


def _tool(tool: Any, place: str) -> dict:
    function = _function(tool, 'a tool has no name', place)
    description = function.get('description')
    parameters = from_json(function.get('parameters'), 'the parameters of a tool are not JSON', place)
    if not isinstance(parameters, (dict, type(None))):
        raise RowError('the parameters of a tool are not an object', f'{place} has {str(parameters)[:60]!r}')
    if parameters is None:
        parameters = {'type': 'object', 'properties': {}}
    named = {'name': function['name']} | ({} if is_empty(description) else {'description': description})
    return {'type': 'function', 'function': named | {'parameters': parameters}}


def _call(call: Any, place: str) -> dict:
    function = _function(call, 'a tool call has no name', place)
    arguments = function.get('arguments')
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    if not isinstance(arguments, (dict, str, type(None))):
        raise RowError('the arguments of a tool call are not an object', f'{place} has {str(arguments)[:60]!r}')
    identity = {} if is_empty(call.get('id')) else {'id': call['id']}
    return identity | {
        'type': 'function',
        'function': {'name': function['name'], 'arguments': {} if arguments is None else arguments},
    }


def _parsed(arguments: str) -> dict | str:
    try:
        value = json.loads(arguments or '{}')
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _function(entry: Any, reason: str, place: str) -> dict:
    function = entry.get('function', entry) if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get('name'), str) or not function['name'].strip():
        raise RowError(reason, f'{place} is {str(entry)[:60]!r}')
    return function
