"""Convert tools and tool calls of all formats to the form that chat templates take.

    tool   {"type": "function", "function": {"name": "add", "description": "...", "parameters": {...}}}
    call   {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}

A bare {"name": ...} is the function itself, and a JSON string is parsed. Other keys of a function, such as `strict`,
are kept. The forms of Anthropic, Bedrock and Gemini are accepted too.
"""

import json
from typing import Any

from ...messages import RowError
from .columns import is_empty

_COLUMNS = ('tools', 'functions', 'toolConfig')
_SCHEMAS = ('parameters', 'input_schema', 'inputSchema', 'parametersJsonSchema')
_ARGUMENTS = ('arguments', 'input', 'args')
_TYPES = (None, 'function', 'custom', 'tool_use')
_DECLARED = ('functionDeclarations', 'function_declarations')


def declared_tools(row: dict) -> list[dict] | None:
    """Return the tools in column `tools` (or `functions`, or Bedrock's `toolConfig`), None if there are none.

    Raises:
        RowError: The column is not JSON or not a list, or a tool has no name.
    """
    name = next((name for name in _COLUMNS if name in row and not is_empty(row[name])), None)
    if name is None:
        return None
    tools = parse_json(row[name], f'column `{name}` is not JSON', '')
    if isinstance(tools, dict) and isinstance(tools.get('tools'), list):
        tools = tools['tools']
    if not isinstance(tools, list):
        raise RowError(f'column `{name}` is not a list of tools', f'it contains a {type(tools).__name__}')
    return [_tool(tool, f'tool {number}') for number, tool in enumerate(_declared(tools), 1)] or None


def tool_calls(value: Any, place: str) -> list[dict]:
    """Return the calls in `value`: one call or a list, as objects or as JSON. `place` names the message in errors.

    An `id` is kept. Arguments that are not a JSON object stay a string.

    Raises:
        RowError: The value is not JSON, or a call has no name.
    """
    value = parse_json(value, 'a tool call is not JSON', place)
    return [_call(call, place) for call in (value if isinstance(value, list) else [value])]


def parse_json(value: Any, reason: str, place: str) -> Any:
    """Parse a JSON string; other values are returned unchanged.

    Raises:
        RowError: The string is not JSON; the error has the reason `reason`.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(reason, f'{place}{": " if place else ""}{error}; it starts with {value[:40]!r}') from error


def _tool(tool: Any, place: str) -> dict:
    function = _function(tool, 'a tool has no name', place)
    description = function.get('description')
    name = next((name for name in _SCHEMAS if name in function), 'parameters')
    parameters = parse_json(function.get(name), 'the parameters of a tool are not JSON', place)
    if isinstance(parameters, dict) and name == 'inputSchema' and 'json' in parameters:
        parameters = parameters['json']
    if not isinstance(parameters, (dict, type(None))):
        raise RowError('the parameters of a tool are not an object', f'{place} has {str(parameters)[:60]!r}')
    if parameters is None:
        parameters = {'type': 'object', 'properties': {}}
    named = {'name': function['name']} | ({} if is_empty(description) else {'description': description})
    known = ('name', 'description', 'type', name)
    others = {key: function[key] for key in function if key not in known and function[key] is not None}
    return {'type': 'function', 'function': named | {'parameters': parameters} | others}


def _call(call: Any, place: str) -> dict:
    function = _function(call, 'a tool call has no name', place)
    arguments = next((function[name] for name in _ARGUMENTS if name in function), None)
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    if not isinstance(arguments, (dict, str, type(None))):
        raise RowError('the arguments of a tool call are not an object', f'{place} has {str(arguments)[:60]!r}')
    name = next((name for name in ('id', 'toolUseId') if name in call and not is_empty(call[name])), None)
    return ({} if name is None else {'id': call[name]}) | {
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
    if function is entry and isinstance(entry, dict):
        function = entry.get('toolSpec', entry)
    if not isinstance(function, dict) or not isinstance(function.get('name'), str) or not function['name'].strip():
        raise RowError(reason, f'{place} is {str(entry)[:60]!r}')
    if entry.get('type') not in _TYPES:
        raise RowError('a tool is not a function', f'{place} has type {entry["type"]!r:.40}')
    return function


def _declared(tools: list) -> list:
    """Return `tools` with each of Gemini's functionDeclarations as a separate tool."""
    result: list = []
    for tool in tools:
        name = next((name for name in _DECLARED if isinstance(tool, dict) and name in tool), None)
        result += tool[name] if name else [tool]
    return result
