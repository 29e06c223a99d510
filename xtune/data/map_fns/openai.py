"""OpenAI messages: role and content, as chat completion APIs take them."""

from typing import Any

from ...messages import Conversation, Message, RowError
from ...registry import map_fn
from .columns import is_empty, listed
from .parts import Parts, read_parts, text_of
from .tools import calls, offered
from .turns import CALL, conversation_of, role_of, trained

_PLAIN = ('system', 'user', 'assistant', 'tool')
THOUGHTS = ('reasoning_content', 'thinking', 'reasoning')


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

    The column may also be called `conversations`, `conversation` or `dialogue`. A reply is trained unless `train`,
    `loss`, `weight`, `loss_weight` or `loss_scale` (a bool, 0, 1 or a word) says no, or `masked` says yes. Replies
    before the first question are left out, user messages in a row are joined by a line break, and a call that follows
    a reply becomes part of it. Content may be a list of parts, also as Anthropic and Bedrock write them. Roles of other
    formats, such as `human` or `tool_response`, are understood. `reasoning_content` (or `thinking`, `reasoning`) of a
    reply is its thought, for templates that have a place for it.
    """
    messages = listed(row, 'messages', 'conversations', 'conversation', 'dialogue')
    mapped: list[Message] = []
    for number, entry in enumerate(messages, 1):
        if (
            type(entry) is dict
            and len(entry) == 2
            and type(entry.get('content')) is str
            and entry.get('role') in _PLAIN
        ):
            mapped.append(entry)  # most messages; the rest takes three times as long
        else:
            mapped += messages_of(entry, f'message {number}')
    return conversation_of(mapped, offered(row))


def _is_plain(entry: Any) -> bool:
    """Tell whether `entry` is a role and a text, and nothing else."""
    return type(entry) is dict and len(entry) == 2 and type(entry.get('content')) is str and entry.get('role') in _PLAIN


def messages_of(entry: Any, place: str) -> list[Message]:
    """Return the message `entry`, and before it the results of tools that it holds.

    Raises:
        RowError: It has no role, an unknown one, or content that is not text; `place` says where.
    """
    if not isinstance(entry, dict) or 'role' not in entry:
        raise RowError('message without role or content', f'{place} is {str(entry)[:60]!r}')
    role, place = role_of(entry['role'], place), f'{place} ({entry["role"]})'
    content = entry.get('content', entry.get('parts'))
    if role == CALL:
        return [{'role': 'assistant', 'content': '', 'tool_calls': calls(content, place)} | trained(entry, place)]
    if role == 'assistant':
        return [_reply(entry, content, place)]
    parts = read_parts(content, place) if isinstance(content, list) else Parts([text_of(content, place)])
    if parts.calls or parts.thoughts:
        raise RowError('only replies have calls and thoughts', place)
    if parts.results and not parts.text.strip():
        return parts.results
    message = {'role': role, 'content': parts.text} | trained(entry, place)
    if role == 'tool':
        message |= {key: entry[key] for key in ('name', 'tool_call_id') if key in entry and entry[key] is not None}
    return [*parts.results, message]


def _reply(entry: dict, content: Any, place: str) -> Message:
    called = entry.get('tool_calls') or entry.get('function_call')
    if content is None and not is_empty(entry.get('refusal')):
        content = entry['refusal']
    if content is None and called:
        content = ''
    parts = read_parts(content, place) if isinstance(content, list) else Parts([text_of(content, place)])
    if parts.results:
        raise RowError('a reply holds the result of a tool', place)
    message = {'role': 'assistant', 'content': parts.text}
    if found := parts.calls + (calls(called, place) if called else []):
        message['tool_calls'] = found
    name = next((name for name in THOUGHTS if name in entry and not is_empty(entry[name])), None)
    if thought := parts.thought or (text_of(entry[name], f'{place}, {name}') if name else ''):
        message['reasoning_content'] = thought
    return message | trained(entry, place, parts.text)
