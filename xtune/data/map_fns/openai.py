"""OpenAI messages: role and content, as in chat completion APIs."""

from typing import Any

from ...messages import Conversation, Message, RowError
from ...registry import map_fn
from .columns import is_empty, list_column
from .parts import ContentParts, content_text, read_parts
from .tools import declared_tools, tool_calls
from .turns import CALL, normalize_role, to_conversation, train_flag

_PLAIN = ('system', 'user', 'assistant', 'tool')
REASONING_FIELDS = ('reasoning_content', 'thinking', 'reasoning')


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

    The column may also be called `conversations`, `conversation` or `dialogue`. An assistant message is trained unless
    `train`, `loss`, `weight`, `loss_weight` or `loss_scale` (a bool, 0, 1 or a word) is false, or `masked` is true.
    Assistant messages before the first user message are left out, consecutive user messages are joined by a line
    break, and a call that follows an assistant message becomes part of it. Content may be a list of parts, also in the
    formats of Anthropic and Bedrock. Roles of other formats, such as `human` or `tool_response`, are accepted.
    `reasoning_content` (or `thinking`, `reasoning`) of an assistant message is used if the template supports reasoning.
    """
    messages = list_column(row, 'messages', 'conversations', 'conversation', 'dialogue')
    mapped: list[Message] = []
    for number, entry in enumerate(messages, 1):
        if (
            type(entry) is dict
            and len(entry) == 2
            and type(entry.get('content')) is str
            and entry.get('role') in _PLAIN
        ):
            mapped.append(entry)  # most messages; the general case takes three times as long
        else:
            mapped += to_messages(entry, f'message {number}')
    return to_conversation(mapped, declared_tools(row))


def to_messages(entry: Any, place: str) -> list[Message]:
    """Return the message `entry`, preceded by the tool results it contains.

    Raises:
        RowError: It has no role, an unknown role, or content that is not text. `place` names the message in the error.
    """
    if not isinstance(entry, dict) or 'role' not in entry:
        raise RowError('message without role or content', f'{place} is {str(entry)[:60]!r}')
    role, place = normalize_role(entry['role'], place), f'{place} ({entry["role"]})'
    content = entry.get('content', entry.get('parts'))
    if role == CALL:
        return [
            {'role': 'assistant', 'content': '', 'tool_calls': tool_calls(content, place)} | train_flag(entry, place)
        ]
    if role == 'assistant':
        return [_assistant_message(entry, content, place)]
    parts = read_parts(content, place) if isinstance(content, list) else ContentParts([content_text(content, place)])
    if parts.calls or parts.reasoning_texts:
        raise RowError('only assistant messages may contain tool calls and reasoning', place)
    if parts.results and not parts.text.strip():
        return parts.results
    message = {'role': role, 'content': parts.text} | train_flag(entry, place)
    if role == 'tool':
        message |= {key: entry[key] for key in ('name', 'tool_call_id') if key in entry and entry[key] is not None}
    return [*parts.results, message]


def _assistant_message(entry: dict, content: Any, place: str) -> Message:
    calls = entry.get('tool_calls') or entry.get('function_call')
    if content is None and not is_empty(entry.get('refusal')):
        content = entry['refusal']
    if content is None and calls:
        content = ''
    parts = read_parts(content, place) if isinstance(content, list) else ContentParts([content_text(content, place)])
    if parts.results:
        raise RowError('an assistant message contains a tool result', place)
    message = {'role': 'assistant', 'content': parts.text}
    if all_calls := parts.calls + (tool_calls(calls, place) if calls else []):
        message['tool_calls'] = all_calls
    name = next((name for name in REASONING_FIELDS if name in entry and not is_empty(entry[name])), None)
    if reasoning := parts.reasoning or (content_text(entry[name], f'{place}, {name}') if name else ''):
        message['reasoning_content'] = reasoning
    return message | train_flag(entry, place, parts.text)
