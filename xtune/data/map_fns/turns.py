"""What map functions of whole dialogues share: roles, and from messages to a conversation in order."""

from typing import Any

from ...messages import Conversation, Message, RowError
from ...utils.visible import shortened
from .flags import trained

CALL = 'call'
# Role of a message, or speaker of a turn, in any of the formats -> role of a message here.
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


def role_of(name: Any, place: str) -> str:
    """Return the role that `name` means, or `CALL` for a turn that is a tool call.

    Raises:
        RowError: It is none; `place` says where.
    """
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise RowError('unknown role', f'{place} has role {name!r}; known: {", ".join(ROLES)}')
    return role


def conversation_of(messages: list[Message], tools: list[dict] | None, join_questions: bool = True) -> Conversation:
    """Return the conversation of `messages`: calls that follow a reply or a call become part of its message, replies
    before the first question are left out and noted, and questions in a row are joined by a line break.

    Raises:
        RowError: There is a system message after the first message, or parts of one reply differ in their flags.
    """
    if any('tool_calls' in message for message in messages):
        messages = _with_calls_joined(messages)
    messages, notes = _in_order(messages)
    return Conversation(_joined_questions(messages) if join_questions else messages, tools, notes)


def _with_calls_joined(messages: list[Message]) -> list[Message]:
    result: list[Message] = []
    for message in messages:
        before = result[-1] if result else message
        if result and message.get('tool_calls') and before['role'] == 'assistant' and not message['content']:
            if before.get('train', True) != message.get('train', True):
                raise RowError('a reply and its call differ in being trained', f'the call is {_names(message)}')
            thoughts = [m['reasoning_content'] for m in (before, message) if m.get('reasoning_content')]
            result[-1] = before | {'tool_calls': [*before.get('tool_calls', ()), *message['tool_calls']]}
            if thoughts:
                result[-1]['reasoning_content'] = '\n'.join(thoughts)
        else:
            result.append(message)
    return result


def _names(message: Message) -> str:
    return ', '.join(call['function']['name'] for call in message['tool_calls'])


def _in_order(messages: list[Message]) -> tuple[list[Message], tuple[tuple[str, str], ...]]:
    for index, message in enumerate(messages[1:], 2):
        if message['role'] == 'system':
            raise RowError('system message after the start', f'message {index}; only the first one may be it')
    first = 1 if messages and messages[0]['role'] == 'system' else 0
    question = next((i for i, message in enumerate(messages) if message['role'] == 'user'), first)
    if question == first or any(message['role'] != 'assistant' for message in messages[first:question]):
        return messages, ()
    note = ('replies before the first question', shortened(messages[first]['content']))
    return messages[:first] + messages[question:], (note,)


def _joined_questions(messages: list[Message]) -> list[Message]:
    result: list[Message] = []
    for message in messages:
        if result and result[-1]['role'] == message['role'] == 'user':
            before = result.pop()
            message = {**before, 'content': f'{before["content"]}\n{message["content"]}'}
        result.append(message)
    return result


__all__ = ['CALL', 'ROLES', 'conversation_of', 'role_of', 'trained']
