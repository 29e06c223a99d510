"""Helpers of map functions for dialogues: normalize roles, merge and order messages."""

from typing import Any

from ...messages import Conversation, Message, RowError
from ...utils.visible import shortened
from .flags import train_flag

CALL = 'call'
# Role or speaker name in any of the formats -> role in xtune's messages.
ROLES = {
    'system': 'system',
    'developer': 'system',
    'user': 'user',
    'human': 'user',
    'assistant': 'assistant',
    'gpt': 'assistant',
    'model': 'assistant',
    'bot': 'assistant',
    'ai': 'assistant',
    'chatgpt': 'assistant',
    'bing': 'assistant',
    'bard': 'assistant',
    'tool': 'tool',
    'function': 'tool',
    'observation': 'tool',
    'tool_response': 'tool',
    'tool_result': 'tool',
    'function_response': 'tool',
    'function_call': CALL,
    'tool_call': CALL,
}


def normalize_role(name: Any, place: str) -> str:
    """Return the role for the role or speaker `name`; `CALL` for a turn that is a tool call.

    Raises:
        RowError: The name is unknown. `place` names the message in the error.
    """
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise RowError('unknown role', f'{place} has role {name!r}; known: {", ".join(ROLES)}')
    return role


def to_conversation(messages: list[Message], tools: list[dict] | None, join_questions: bool = True) -> Conversation:
    """Return `messages` as a conversation.

    A call that follows an assistant message becomes part of it. Assistant messages before the first user message are
    left out and noted. With `join_questions`, consecutive user messages are joined by a line break.

    Raises:
        RowError: A system message is not the first message, or parts of one assistant message have different training
            flags.
    """
    if any('tool_calls' in message for message in messages):
        messages = _merge_calls(messages)
    messages, notes = _in_order(messages)
    return Conversation(_joined_questions(messages) if join_questions else messages, tools, notes)


def _merge_calls(messages: list[Message]) -> list[Message]:
    result: list[Message] = []
    for message in messages:
        before = result[-1] if result else message
        if result and message.get('tool_calls') and before['role'] == 'assistant' and not message['content']:
            if before.get('train', True) != message.get('train', True):
                raise RowError(
                    'an assistant message and its tool call have different training flags',
                    f'the call is {_function_names(message)}',
                )
            reasoning = [m['reasoning_content'] for m in (before, message) if m.get('reasoning_content')]
            result[-1] = before | {'tool_calls': [*before.get('tool_calls', ()), *message['tool_calls']]}
            if reasoning:
                result[-1]['reasoning_content'] = '\n'.join(reasoning)
        else:
            result.append(message)
    return result


def _function_names(message: Message) -> str:
    return ', '.join(call['function']['name'] for call in message['tool_calls'])


def _in_order(messages: list[Message]) -> tuple[list[Message], tuple[tuple[str, str], ...]]:
    for index, message in enumerate(messages[1:], 2):
        if message['role'] == 'system':
            raise RowError('system message after the start', f'message {index}; only the first may be a system message')
    first = 1 if messages and messages[0]['role'] == 'system' else 0
    question = next((i for i, message in enumerate(messages) if message['role'] == 'user'), first)
    if question == first or any(message['role'] != 'assistant' for message in messages[first:question]):
        return messages, ()
    note = ('assistant messages before the first user message', shortened(messages[first]['content']))
    return messages[:first] + messages[question:], (note,)


def _joined_questions(messages: list[Message]) -> list[Message]:
    result: list[Message] = []
    for message in messages:
        if result and result[-1]['role'] == message['role'] == 'user':
            before = result.pop()
            message = {**before, 'content': f'{before["content"]}\n{message["content"]}'}
        result.append(message)
    return result


__all__ = ['CALL', 'ROLES', 'to_conversation', 'normalize_role', 'train_flag']
