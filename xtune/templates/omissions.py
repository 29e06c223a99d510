"""Find what a template silently leaves out of a conversation: some templates drop messages they do not support."""

import json

from ..messages import Message

OMITTED_REASONING = 'the reasoning of an assistant message'


def first_omission(messages: list[Message], text: str) -> str | None:
    """Return which part of `messages` is missing in the rendered `text`, None if nothing is.

    System and tool messages, tool calls and reasoning are looked for. Most formats drop the reasoning before the last
    user message: there it is an omission only if the assistant message is trained.
    """
    last_question = max((i for i, m in enumerate(messages) if m['role'] == 'user'), default=0)
    for index, message in enumerate(messages):
        expected = [call['function']['name'] for call in message.get('tool_calls') or ()]
        if message['role'] in ('system', 'tool'):
            expected.append(message['content'].strip())
        if not all(_contains(text, part) for part in expected):
            return 'tool calls' if message['role'] == 'assistant' else f'{message["role"]} messages'
        reasoning = message.get('reasoning_content') or message.get('thinking') or ''
        if reasoning.strip() not in text and (index > last_question or message.get('train', True)):
            return OMITTED_REASONING
    return None


def _contains(text: str, part: str) -> bool:
    return part in text or json.dumps(part, ensure_ascii=False)[1:-1] in text
