"""Columns with the same meaning in every built-in format: a system message, reasoning, images.

Map functions read the columns of their own format. These three are then read from the rows of any format, unless the
map function has already used them.
"""

import re
from collections.abc import Container
from dataclasses import replace
from typing import Any

from ..messages import Conversation, RowError
from ..utils.visible import shortened
from .key_usage import has_content
from .map_fns.parts import content_text

SYSTEM = ('system', 'system_prompt', 'system_message', 'systemPrompt')
REASONING = (
    'reasoning_content',
    'reasoning',
    'thinking',
    'thought',
    'thoughts',
    'Complex_CoT',
    'cot',
    'chain_of_thought',
    'rationale',
)
MEDIA = ('images', 'image', 'audios', 'audio', 'videos', 'video')
REASONING_KEYS = ('reasoning_content', 'thinking')  # of a message
NOT_RENDERED = 'reasoning of messages, as the chat template does not render it'
ANY = frozenset(SYSTEM + REASONING + MEDIA)
# A placeholder is at the start or end of a text or line; an HTML tag has a closing tag. HTML has no </img>.
_TAG = r'<(?:image|audio|video)>|<\|(?i:image|audio|video|vision)(?:_pad|_start|_bos|_\d+)?\|>'
_PLACEHOLDER = re.compile(rf'(?:^|\n)\s*({_TAG})|({_TAG})\s*(?:\n|$)|(<img>[^<>\n]+</img>)')


def check_media(row: dict, conversation: Conversation, ignored: frozenset[str]) -> None:
    """Refuse a row with images, audio or video: a text model would be trained on half of it.

    Raises:
        RowError: A media column that is not in `ignored` has content, or a user message has a media placeholder.
    """
    for name in MEDIA:
        if name in row and name not in ignored and has_content(row[name]):
            raise RowError(
                f'row has media, in column `{name}`',
                f'{shortened(row[name])}; xtune trains text models: remove such rows, or train on their text alone '
                f"with train_dataset.ignore=['{name}']",
            )
    if ignored.isdisjoint(MEDIA):
        for number, message in enumerate(conversation.messages, 1):
            content = message['content']
            if message['role'] == 'user' and '>' in content and (match := _PLACEHOLDER.search(content)):
                placeholder = match.group().strip()
                if f'</{placeholder[1:]}' not in content:
                    medium = next((word for word in ('audio', 'video') if word in placeholder.lower()), 'image')
                    raise RowError(
                        f'user message has a placeholder for {medium}',
                        f'message {number} has {placeholder:.40}; xtune trains text models: remove such rows',
                    )


def with_system(row: dict, conversation: Conversation, name: str) -> Conversation:
    """Return `conversation` with the text of column `name` as system message, appended to an existing one."""
    text = content_text(row[name], f'column `{name}`').strip()
    first = conversation.messages[0]
    if first['role'] != 'system':
        return replace(conversation, messages=[{'role': 'system', 'content': text}, *conversation.messages])
    if text in first['content']:  # the map function has used the column
        return conversation
    combined = f'{first["content"]}\n\n{text}' if first['content'] else text
    return replace(conversation, messages=[{**first, 'content': combined}, *conversation.messages[1:]])


def with_reasoning(row: dict, conversation: Conversation, name: str, is_rendered: bool) -> Conversation:
    """Return `conversation` with the text of column `name` as reasoning of its last message.

    If the template does not render reasoning (`is_rendered`), return it with a note instead.
    """
    last = conversation.messages[-1]
    if 'reasoning_content' in last or '<think>' in last['content']:
        return conversation
    text = content_text(row[name], f'column `{name}`')
    if not is_rendered:
        note = f'column `{name}`, as the chat template does not render reasoning'
        return replace(conversation, notes=(*conversation.notes, (note, shortened(text))))
    messages = [*conversation.messages[:-1], {**last, 'reasoning_content': text.strip()}]
    return replace(conversation, messages=messages)


def without_reasoning(conversation: Conversation) -> Conversation:
    """Return `conversation` without reasoning, and with a note if it had some: the template does not render it."""
    reasonings = (message[key] for message in conversation.messages for key in REASONING_KEYS if message.get(key))
    first = next(reasonings, None)
    if first is None:
        return conversation
    messages = [{k: v for k, v in message.items() if k not in REASONING_KEYS} for message in conversation.messages]
    return replace(conversation, messages=messages, notes=(*conversation.notes, (NOT_RENDERED, shortened(first))))


def text_column(row: dict, names: tuple[str, ...], used: Container[str]) -> str | None:
    """Return the first of the columns `names`, except those in `used`, that has text; does not count as reading it."""
    present = (name for name in names if name in row and name not in used)
    return next((name for name in present if _has_text(dict.get(row, name))), None)


def _has_text(value: Any) -> bool:
    """Tell whether `value` is a string that is not blank, or a list of content parts with text."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        texts = [dict.get(part, 'text') for part in value]
        return all(isinstance(text, str) for text in texts) and any(texts)
    return isinstance(value, str) and bool(value.strip())
