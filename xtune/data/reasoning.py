"""Thoughts of replies, for templates that have a place for them.

    {"content": "<think>\nTwo and two.\n</think>\n\nIt is 4."}
    {"content": "It is 4.", "reasoning_content": "Two and two."}     the same

A thought stands in front of a reply, in tags, as the field `reasoning_content` or `thinking`, or in front of `</think>`
alone, as models write it whose prompt ends in `<think>`. Tags elsewhere in a reply are text. The templates of the
package follow the same rules where other programs give them the text.

Templates leave out the thoughts before the last question. So a conversation with several is split, each sample is what
the model has seen when it thought, and only the replies in `[ ]` are trained:

    Hi  think  [Hello!]
    Hi  Hello!  What is 2+2?  [think  It is 4.]
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
SPLIT = 'split into samples that end in a thought and its reply, as the template leaves out earlier thoughts'
INSIDE = f'with {OPEN} or {CLOSE} inside a reply, which stays text'
LEFT_OUT = 'thoughts before the last question, as their replies are not trained'
_TAG = re.compile(f'{OPEN}|{CLOSE}')


@dataclass(frozen=True)
class Samples:
    """What one conversation becomes: `parts`, each a sample; what is to be said of it; a thought that is left out."""

    parts: list[Conversation]
    remarks: list[str]
    left_out: str = ''


def samples(given: Conversation, template: ChatTemplate, keep_tags: bool, last_only: bool) -> Samples:
    """Return what to make samples of: `given`, or parts of it.

    Args:
        given: As the map function returned it.
        template: Leaves out thoughts before the last question, or does not.
        keep_tags: Leave tags in the text, as the template reads them.
        last_only: Only the last reply is trained.

    Raises:
        RowError: A thought is not closed, there are two of one reply, or there is nothing after it.
    """
    told_of = {
        i: told(m, f'message {i + 1}')
        for i, m in enumerate(given.messages)
        if m['role'] == 'assistant' and ('think>' in m['content'] or _has_field(m))
    }
    if not told_of:
        return Samples([given], [])
    messages = [
        m if i not in told_of or keep_tags and not _has_field(m) else told_of[i] for i, m in enumerate(given.messages)
    ]
    given = replace(given, messages=messages)
    remarks = [INSIDE] * any(OPEN in m['content'] or CLOSE in m['content'] for m in told_of.values())
    thoughts = {i: thought for i, m in told_of.items() if (thought := (m.get('reasoning_content') or '').strip())}
    questions = [i for i, m in enumerate(messages) if m['role'] == 'user']
    if not thoughts or min(thoughts) > questions[-1] or not template.drops_thoughts:
        return Samples([given], remarks)
    trained = [i for i, m in enumerate(messages) if is_trained(m) and (not last_only or i == len(messages) - 1)]
    parts = _parts(questions, trained, thoughts)
    shown = {bisect(questions, part[-1]) for part in parts}
    lost = [thought for i, thought in thoughts.items() if bisect(questions, i) not in shown]
    remarks += [SPLIT] * (len(parts) > 1)
    split = [replace(given, messages=_only(messages, part)) for part in parts]
    return Samples(split or [given], remarks, lost[0] if lost else '')


def told(message: Message, place: str) -> Message:
    """Return a reply with its thought as `reasoning_content`, or as it is if it has none.

    Raises:
        RowError: A thought is not closed, there are two, or there is nothing after it; `place` says where.
    """
    given = message.get('reasoning_content') or message.get('thinking') or ''
    bare = given.strip().removeprefix(OPEN).removesuffix(CLOSE)  # some fields hold the tags, too
    own = given if bare == given.strip() else bare
    thought, text = _parted(message['content'])
    if CLOSE in own:
        raise RowError(f'a thought holds {CLOSE}', f'{place}, {own[:60]!r}')
    if thought is None and not own:
        check_closed(message, place)
    if own and thought and own.strip() != thought.strip():
        raise RowError('a reply has two thoughts', f'{place}: {own[:40]!r} and {thought[:40]!r}')
    if not text.strip() and not message.get('tool_calls'):
        raise RowError('empty reply', f'{place} is a thought alone')
    if not own and thought is None:
        return message
    kept = {key: value for key, value in message.items() if key != 'thinking'}
    return kept | {'content': text, 'reasoning_content': own or thought or ''}


def check_closed(reply: Message, place: str) -> None:
    """Refuse a reply that was cut off in its thought, whatever the template: the model would learn to stop there.

    Raises:
        RowError: It begins with the first tag and has no second one.
    """
    content = reply['content']
    if OPEN in content and CLOSE not in content and content.lstrip().startswith(OPEN):
        raise RowError('a thought is not closed', f'{place} begins with {OPEN} and has no {CLOSE}')


def remembered(messages: list[Message], keep_tags: bool) -> list[Message]:
    """Return the messages of a chat as `samples` does; a reply that cannot be trained stays as it was generated."""
    result = list(messages)
    for i, message in enumerate(messages):
        if message['role'] == 'assistant' and (_has_field(message) or not keep_tags and 'think>' in message['content']):
            with suppress(RowError):
                result[i] = told(message, '')
    return result


def require_all(messages: list[Message], text: str) -> None:
    """Raise if a template has left out a part of a trained reply with tags in it.

    Args:
        messages: With tags in the text.
        text: What the template has made of them.

    Raises:
        RowError: It has.
    """
    for number, message in enumerate(messages, 1):
        if message['role'] == 'assistant' and 'think>' in message['content'] and is_trained(message):
            for part in _TAG.split(message['content']):
                if part.strip() not in text:
                    raise RowError('the template leaves out a part of a reply', f'message {number}, {part[:60]!r}')


def _has_field(message: Message) -> bool:
    return bool(message.get('reasoning_content') or message.get('thinking'))


def _parts(questions: list[int], trained: list[int], thoughts: Container[int]) -> list[list[int]]:
    """Return the messages that are trained in each part. A part ends with an exchange that has thoughts, or the last.

    Args:
        questions: Messages with which exchanges begin.
        trained: Messages that get a loss.
        thoughts: Messages that have a thought.
    """
    parts, waiting = [], []
    for start, end in pairwise([*questions, sys.maxsize]):
        mine = [i for i in trained if start <= i < end]
        waiting += mine
        if mine and any(i in thoughts for i in range(start, mine[-1] + 1)):
            parts.append(waiting)
            waiting = []
    return [*parts, waiting] if waiting else parts


def _only(messages: list[Message], trained: list[int]) -> list[Message]:
    """Return `messages` up to the last that is `trained`, the other replies without a loss."""
    return [
        m if m['role'] != 'assistant' or i in trained else {**m, 'train': False}
        for i, m in enumerate(messages[: trained[-1] + 1])
    ]


def _parted(text: str) -> tuple[str | None, str]:
    """Return the thought in front of a reply (None if there is none) and the rest."""
    head, close, rest = text.partition(CLOSE)
    start = head.lstrip()
    if close and start.startswith(OPEN):
        return start[len(OPEN) :], rest.lstrip('\n')
    # Without the first tag, the second ends a thought where it begins or ends a line, as models write it.
    alone = not start or head.endswith('\n') or not rest or rest.startswith('\n')
    return (head, rest.lstrip('\n')) if close and OPEN not in head and alone else (None, text)
