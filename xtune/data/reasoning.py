"""Reasoning content of assistant messages, for templates that render it.

    {"content": "<think>\nTwo and two.\n</think>\n\nIt is 4."}
    {"content": "It is 4.", "reasoning_content": "Two and two."}     the same

Reasoning precedes a response: in tags, as the field `reasoning_content` or `thinking`, or before `</think>` alone, as
written by models whose prompt ends in `<think>`. Tags elsewhere in a response are ordinary text. The package's own
templates follow the same rules when other programs render with them.

Templates drop the reasoning before the last question. A conversation with several reasonings is therefore split: each
sample is what the model sees at inference, and only the responses in `[ ]` are trained:

    Hi  reasoning  [Hello!]
    Hi  Hello!  What is 2+2?  [reasoning  It is 4.]
"""

import re
import sys
from bisect import bisect
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

from ..messages import Conversation, Message, RowError, is_trained
from ..templates.template import ChatTemplate

OPEN, CLOSE = '<think>', '</think>'
# Remarks of the report, after a count of rows.
SPLIT = 'split into samples that each end in reasoning and its response (the template drops earlier reasoning)'
TAG_IN_RESPONSE = f'with {OPEN} or {CLOSE} inside a response, kept as ordinary text'
# A part of the data that is not used.
DROPPED = 'reasoning before the last question, as these messages are not trained'
_TAG = re.compile(f'{OPEN}|{CLOSE}')


@dataclass(frozen=True)
class ReasoningSplit:
    """The parts of one conversation, each to become a sample; remarks; and an example of reasoning that is dropped."""

    parts: list[Conversation]
    remarks: list[str]
    dropped: str = ''


def split(conversation: Conversation, template: ChatTemplate, keep_tags: bool, last_reply_only: bool) -> ReasoningSplit:
    """Return the parts of `conversation` that each become a sample: itself, or one for each reasoning.

    Args:
        conversation: As returned by the map function.
        template: Tells whether reasoning before the last question is dropped.
        keep_tags: Leave tags in the content, for a template that parses them.
        last_reply_only: Only the last assistant message is trained.

    Raises:
        RowError: Reasoning is not closed, given twice, or not followed by a response.
    """
    normalized = {
        i: normalize(message, f'message {i + 1}')
        for i, message in enumerate(conversation.messages)
        if message['role'] == 'assistant' and ('think>' in message['content'] or _has_field(message))
    }
    if not normalized:
        return ReasoningSplit([conversation], [])
    messages = [
        message if i not in normalized or keep_tags and not _has_field(message) else normalized[i]
        for i, message in enumerate(conversation.messages)
    ]
    conversation = replace(conversation, messages=messages)
    remarks = [TAG_IN_RESPONSE] * any(OPEN in m['content'] or CLOSE in m['content'] for m in normalized.values())
    reasonings = {i: text for i, m in normalized.items() if (text := (m.get('reasoning_content') or '').strip())}
    questions = [i for i, m in enumerate(messages) if m['role'] == 'user']
    if not reasonings or min(reasonings) > questions[-1] or not template.drops_earlier_reasoning:
        return ReasoningSplit([conversation], remarks)
    trained = [i for i, m in enumerate(messages) if is_trained(m) and (not last_reply_only or i == len(messages) - 1)]
    parts = _trained_messages_of_parts(questions, trained, reasonings)
    rendered_exchanges = {bisect(questions, part[-1]) for part in parts}
    dropped = [text for i, text in reasonings.items() if bisect(questions, i) not in rendered_exchanges]
    remarks += [SPLIT] * (len(parts) > 1)
    conversations = [replace(conversation, messages=_up_to(messages, part)) for part in parts]
    return ReasoningSplit(conversations or [conversation], remarks, dropped[0] if dropped else '')


def normalize(message: Message, place: str) -> Message:
    """Return an assistant message with its reasoning as `reasoning_content`; unchanged if it has none.

    Raises:
        RowError: Reasoning is not closed, given twice, or not followed by a response; `place` names the message.
    """
    raw = message.get('reasoning_content') or message.get('thinking') or ''
    without_tags = raw.strip().removeprefix(OPEN).removesuffix(CLOSE)  # some data sets keep the tags in the field
    field = raw if without_tags == raw.strip() else without_tags
    tagged, response = _split_tagged(message['content'])
    if CLOSE in field:
        raise RowError(f'reasoning contains {CLOSE}', f'{place}, {field[:60]!r}')
    if tagged is None and not field:
        check_closed(message, place)
    if field and tagged and field.strip() != tagged.strip():
        raise RowError('two different reasonings in one message', f'{place}: {field[:40]!r} and {tagged[:40]!r}')
    if not response.strip() and not message.get('tool_calls'):
        raise RowError('empty reply', f'{place} has reasoning only')
    if not field and tagged is None:
        return message
    others = {key: value for key, value in message.items() if key != 'thinking'}
    return others | {'content': response, 'reasoning_content': field or tagged or ''}


def check_closed(message: Message, place: str) -> None:
    """Refuse a response that was cut off while reasoning, with any template: the model would learn to stop there.

    Raises:
        RowError: The message begins with the opening tag and has no closing tag.
    """
    content = message['content']
    if OPEN in content and CLOSE not in content and content.lstrip().startswith(OPEN):
        raise RowError('unclosed reasoning', f'{place} begins with {OPEN} and has no {CLOSE}')


def normalize_history(messages: list[Message], keep_tags: bool) -> list[Message]:
    """Return the messages of a chat, normalized as for training; a message that would be refused stays as it is."""
    result = list(messages)
    for i, message in enumerate(messages):
        if message['role'] == 'assistant' and (_has_field(message) or not keep_tags and 'think>' in message['content']):
            with suppress(RowError):
                result[i] = normalize(message, '')
    return result


def require_rendered(messages: list[Message], text: str) -> None:
    """Check that a template that parses tags has rendered every part of the trained messages.

    Args:
        messages: Messages with tags in their content.
        text: The rendered conversation.

    Raises:
        RowError: The template has dropped a part.
    """
    for number, message in enumerate(messages, 1):
        if message['role'] == 'assistant' and 'think>' in message['content'] and is_trained(message):
            for part in _TAG.split(message['content']):
                if part.strip() not in text:
                    raise RowError('the template drops a part of a response', f'message {number}, {part[:60]!r}')


def _has_field(message: Message) -> bool:
    return bool(message.get('reasoning_content') or message.get('thinking'))


def _trained_messages_of_parts(questions: list[int], trained: list[int], reasonings: Container[int]) -> list[list[int]]:
    """Return the indices of trained messages for each part. A part ends with an exchange with reasoning, or the last.

    Args:
        questions: Indices of user messages; each starts an exchange.
        trained: Indices of messages that get a loss.
        reasonings: Indices of messages with reasoning.
    """
    parts, pending = [], []
    for start, end in pairwise([*questions, sys.maxsize]):
        of_exchange = [i for i in trained if start <= i < end]
        pending += of_exchange
        if of_exchange and any(i in reasonings for i in range(start, of_exchange[-1] + 1)):
            parts.append(pending)
            pending = []
    return [*parts, pending] if pending else parts


def _up_to(messages: list[Message], trained: list[int]) -> list[Message]:
    """Return `messages` up to the last index in `trained`; assistant messages not in `trained` get no loss."""
    return [
        message if message['role'] != 'assistant' or i in trained else {**message, 'train': False}
        for i, message in enumerate(messages[: trained[-1] + 1])
    ]


def _split_tagged(content: str) -> tuple[str | None, str]:
    """Return the tagged reasoning at the start of `content` (None if there is none), and the response."""
    before, close, after = content.partition(CLOSE)
    start = before.lstrip()
    if close and start.startswith(OPEN):
        return start[len(OPEN) :], after.lstrip('\n')
    # Without an opening tag, the closing tag ends the reasoning only at a line boundary, where models write it.
    at_line_boundary = not start or before.endswith('\n') or not after or after.startswith('\n')
    return (before, after.lstrip('\n')) if close and OPEN not in before and at_line_boundary else (None, content)
