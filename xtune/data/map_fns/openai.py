"""OpenAI messages: role and content, as chat completion APIs take them."""

from typing import Any

from ...registry import map_fn
from ..conversation import Conversation, Message, RowError
from .columns import listed
from .tools import calls, offered
from .turns import in_order, joined_questions, trained

_ROLES = {
    'system': 'system',
    'developer': 'system',
    'user': 'user',
    'assistant': 'assistant',
    'tool': 'tool',
    'function': 'tool',
}


@map_fn('openai')
def openai_map_fn(row: dict) -> Conversation:
    r"""OpenAI messages with roles, tools and tool calls.

    Row:
        {"messages": [{"role": "user", "content": "2 + 3?"},
                      {"role": "assistant", "content": "6", "loss": false},
                      {"role": "user", "content": "Use the tool."},
                      {"role": "assistant", "content": null, "tool_calls": [
                          {"type": "function", "function": {"name": "add", "arguments": "{\"a\": 2, \"b\": 3}"}}]},
                      {"role": "tool", "content": "5"},
                      {"role": "assistant", "content": "It is 5."}],
         "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]}
    Result:
        user: "2 + 3?"
        assistant: "6" {"train": false}
        user: "Use the tool."
        assistant: "" {"tool_calls": [
                          {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}]}
        tool: "5"
        assistant: "It is 5."
        tools: [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]

    The column may also be called `conversations`, `conversation` or `dialogue`. `train`, `loss` or `weight` of a
    reply (a bool, a number or a word) say whether it is trained; without them it is. Replies before the first
    question are left out, user messages in a row are joined by a line break, and content may be a list of text
    parts. `reasoning_content` (or `thinking`) of a reply is its thought, for templates that have a place for it.
    """
    messages = listed(row, 'messages', 'conversations', 'conversation', 'dialogue')
    mapped = [_message(message, f'message {number}') for number, message in enumerate(messages, 1)]
    return Conversation(joined_questions(in_order(mapped)), offered(row))


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, dict) or 'role' not in message:
        raise RowError('message without role or content', f'{place} is {str(message)[:60]!r}')
    role = _ROLES.get(str(message['role']))
    if role is None:
        raise RowError('unknown role', f'{place} has role {message["role"]!r}; known: {", ".join(_ROLES)}')
    called = (message.get('tool_calls') or message.get('function_call')) if role == 'assistant' else None
    content = message.get('content')
    result = {'role': role, 'content': '' if called and content is None else _text(content, f'{place} ({role})')}
    if called:
        result['tool_calls'] = calls(called, place)
    thought = message.get('reasoning_content') or message.get('thinking')
    if role == 'assistant' and thought:
        result['reasoning_content'] = _text(thought, f'{place} (thought)')
    if role == 'tool':
        result |= {key: message[key] for key in ('name', 'tool_call_id') if message.get(key) is not None}
    return result | trained(message, place)


def _text(content: Any, place: str) -> str:
    if isinstance(content, list):
        texts = [part.get('text') for part in content if isinstance(part, dict) and part.get('type') == 'text']
        if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
            raise RowError('content is not text', f'{place} has parts that are not text')
        return ''.join(texts)
    if not isinstance(content, str):
        raise RowError('content is not text', f'{place} holds {_kind(content)}')
    return content


def _kind(value: Any) -> str:
    return 'nothing' if value is None else f'a {type(value).__name__}'
