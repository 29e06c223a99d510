"""Thoughts of replies, for templates that have a place for them.

    {"content": "<think>\nTwo and two.\n</think>\n\nIt is 4."}
    {"content": "It is 4.", "reasoning_content": "Two and two."}     the same; what templates are given

A thought stands in front of a reply, in tags, as the field `reasoning_content` or `thinking`, or in front of `</think>`
alone, as models write it whose prompt ends in `<think>`. Tags elsewhere in a reply are text. The templates of the
package follow the same rules where other programs give them the text.

Templates leave out the thoughts before the last question. So a conversation with several is split, each sample is what
the model has seen when it thought, and only the replies in `[ ]` are trained:

    Hi  think  [Hello!]
    Hi  Hello!  What is 2+2?  [think  It is 4.]
"""

from dataclasses import replace
from itertools import pairwise

from ..templates.template import ChatTemplate
from .conversation import Conversation, Message, RowError, is_trained

OPEN, CLOSE = '<think>', '</think>'
SPLIT = 'split into samples that end in a thought and its reply, as the template leaves out earlier thoughts'
INSIDE = f'with {OPEN} or {CLOSE} inside a reply, which stays text'
LEFT_OUT = 'with thoughts before the last question that are not used, as their replies are not trained'


def samples(given: Conversation, template: ChatTemplate, last_only: bool) -> tuple[list[Conversation], list[str]]:
    """Return what to make samples of, each thought as `reasoning_content`: `given`, or parts of it so that each thought
    that is trained is in the text; and what is to be said of it.

    Args:
        given: As the map function returned it.
        template: Leaves out thoughts before the last question, or does not.
        last_only: Only the last reply is trained.

    Raises:
        RowError: A thought is not closed, there are two of one reply, or there is nothing after it.
    """
    messages = told(given.messages)
    if messages is not given.messages:
        given = replace(given, messages=messages)
    remarks = [INSIDE] * any(m['role'] == 'assistant' and 'think>' in m['content'] for m in messages)
    questions = [i for i, m in enumerate(messages) if m['role'] == 'user']
    if len(questions) < 2 or not any(map(_thinks, messages[: questions[-1]])) or not template.drops_thoughts:
        return [given], remarks
    trained = [is_trained(m) and (not last_only or i == len(messages) - 1) for i, m in enumerate(messages)]
    parts, waiting, lost = [], [], False
    for start, end in pairwise([*questions, len(messages)]):
        mine = [i for i in range(start, end) if trained[i]]
        waiting += mine
        if thinks := any(map(_thinks, messages[start:end])):
            lost = lost or not mine
        if mine and thinks:
            parts.append(waiting)
            waiting = []
    if waiting:
        parts.append(waiting)
    remarks += [SPLIT] * (len(parts) > 1) + [LEFT_OUT] * lost
    return [replace(given, messages=_only(messages, part)) for part in parts] or [given], remarks


def told(messages: list[Message]) -> list[Message]:
    """Return `messages` with the thought of each reply as `reasoning_content`; the same list if there is none.

    Raises:
        RowError: A thought is not closed, there are two of one reply, or there is nothing after it.
    """
    found = [_told(m, i) if m['role'] == 'assistant' else m for i, m in enumerate(messages, 1)]
    return messages if all(a is b for a, b in zip(found, messages, strict=True)) else found


def remembered(messages: list[Message]) -> list[Message]:
    """Return the messages of a chat as `told` does; a reply that cannot be trained stays as it was generated."""
    return [_told_or_kept(m) if m['role'] == 'assistant' else m for m in messages]


def _told_or_kept(message: Message) -> Message:
    try:
        return _told(message, 0)
    except RowError:
        return message


def _thinks(message: Message) -> bool:
    return bool(message.get('reasoning_content'))


def _only(messages: list[Message], trained: list[int]) -> list[Message]:
    """Return `messages` up to the last that is `trained`, the other replies without a loss."""
    return [
        m if m['role'] != 'assistant' or i in trained else {**m, 'train': False}
        for i, m in enumerate(messages[: trained[-1] + 1])
    ]


def _told(message: Message, number: int) -> Message:
    content, given = message['content'], message.get('reasoning_content') or message.get('thinking')
    if given is None and 'think>' not in content:
        return message
    thought, text = _parted(content)
    own = _bare(given) if isinstance(given, str) else ''
    if CLOSE in own:
        raise RowError(f'a thought holds {CLOSE}', f'message {number}, {own[:60]!r}')
    if thought is None and not own and content.lstrip().startswith(OPEN):
        raise RowError('a thought is not closed', f'message {number} begins with {OPEN} and has no {CLOSE}')
    if thought is None and given is None:
        return message
    if own and thought and own != thought:
        raise RowError('a reply has two thoughts', f'message {number}: {own[:40]!r} and {thought[:40]!r}')
    if not text.strip() and not message.get('tool_calls'):
        raise RowError('empty reply', f'message {number} is a thought alone')
    kept = {key: value for key, value in message.items() if key != 'thinking'}
    return kept | {'content': text, 'reasoning_content': own or thought or ''}


def _parted(text: str) -> tuple[str | None, str]:
    """Return the thought in front of a reply (None if there is none) and the rest."""
    head, close, rest = text.partition(CLOSE)
    start = head.lstrip()
    if close and start.startswith(OPEN):
        return start[len(OPEN) :].strip(), rest.lstrip('\n')
    # Without the first tag, the second ends a thought where it begins or ends a line, as models write it.
    alone = not start or head.endswith('\n') or not rest or rest.startswith('\n')
    return (head.strip(), rest.lstrip('\n')) if close and OPEN not in head and alone else (None, text)


def _bare(thought: str) -> str:
    """Return a thought without the tags that some fields hold, too."""
    return thought.strip().removeprefix(OPEN).removesuffix(CLOSE).strip()
