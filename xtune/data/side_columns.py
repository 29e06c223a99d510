"""Columns that mean the same beside every built-in format: a system text, a thought, images.

Map functions read the columns of their format. These three are looked for in the rows of each of them, unless the
function has used them itself.
"""

import re
from collections.abc import Container
from dataclasses import replace
from typing import Any

from ..messages import Conversation, RowError
from ..utils.visible import shortened
from .map_fns.parts import content_text
from .usage import has_content

SYSTEM = ('system', 'system_prompt', 'system_message', 'systemPrompt')
THOUGHT = (
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
THOUGHT_KEYS = ('reasoning_content', 'thinking')  # of a message
NO_PLACE = 'thoughts of replies, as the template has no place for them'
ANY = frozenset(SYSTEM + THOUGHT + MEDIA)
# A placeholder stands at the start or end of a text or of a line; the tag of a page has an end. Pages have no </img>.
_PLACE = r'<(?:image|audio|video)>|<\|(?i:image|audio|video|vision)(?:_pad|_start|_bos|_\d+)?\|>'
_PLACEHOLDER = re.compile(rf'(?:^|\n)\s*({_PLACE})|({_PLACE})\s*(?:\n|$)|(<img>[^<>\n]+</img>)')


def check_media(row: dict, made: Conversation, ignored: frozenset[str]) -> None:
    """Refuse a row with images, audio or video: a text model would be trained on half of it.

    Raises:
        RowError: A column of media has content, or a question holds the place of some. Columns in `ignored` may.
    """
    for name in MEDIA:
        if name in row and name not in ignored and has_content(row[name]):
            raise RowError(
                f'a row holds media, in column `{name}`',
                f'{shortened(row[name])}; xtune trains text models: leave such rows out, or train on their text alone '
                f"with train_dataset.ignore=['{name}']",
            )
    if ignored.isdisjoint(MEDIA):
        for number, message in enumerate(made.messages, 1):
            content = message['content']
            if message['role'] == 'user' and '>' in content and (found := _PLACEHOLDER.search(content)):
                place = found.group().strip()
                if f'</{place[1:]}' not in content:
                    kind = next((kind for kind in ('audio', 'video') if kind in place.lower()), 'an image')
                    raise RowError(
                        f'a question holds the place of {kind}',
                        f'message {number} has {place:.40}; xtune trains text models: leave such rows out',
                    )


def with_system(row: dict, made: Conversation, name: str) -> Conversation:
    """Return `made` with the text of column `name` as its system message, behind the one it has."""
    text = content_text(row[name], f'column `{name}`').strip()
    first = made.messages[0]
    if first['role'] != 'system':
        return replace(made, messages=[{'role': 'system', 'content': text}, *made.messages])
    if text in first['content']:  # the function has used the column
        return made
    joined = f'{first["content"]}\n\n{text}' if first['content'] else text
    return replace(made, messages=[{**first, 'content': joined}, *made.messages[1:]])


def with_thought(row: dict, made: Conversation, name: str, has_place: bool) -> Conversation:
    """Return `made` with the text of column `name` as the thought of its last reply, if the template has a place for
    it; else with a note."""
    reply = made.messages[-1]
    if 'reasoning_content' in reply or '<think>' in reply['content']:
        return made
    text = content_text(row[name], f'column `{name}`')
    if not has_place:
        note = f'column `{name}`, as the template has no place for thoughts'
        return replace(made, notes=(*made.notes, (note, shortened(text))))
    return replace(made, messages=[*made.messages[:-1], {**reply, 'reasoning_content': text.strip()}])


def without_thoughts(made: Conversation) -> Conversation:
    """Return `made` without the thoughts of its replies, which are noted: the template has no place for them."""
    found = next((message[key] for message in made.messages for key in THOUGHT_KEYS if message.get(key)), None)
    if found is None:
        return made
    messages = [{k: v for k, v in message.items() if k not in THOUGHT_KEYS} for message in made.messages]
    return replace(made, messages=messages, notes=(*made.notes, (NO_PLACE, shortened(found))))


def text_column(row: dict, names: tuple[str, ...], used: Container[str]) -> str | None:
    """Return the first of the columns `names`, those `used` aside, that holds a text. It is not read by that."""
    present = (name for name in names if name in row and name not in used)
    return next((name for name in present if _holds_text(dict.get(row, name))), None)


def _holds_text(value: Any) -> bool:
    """Tell whether `value` is a text that is not blank, or a list of parts with text."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return all(isinstance(dict.get(part, 'text'), str) for part in value) and any(
            dict.get(p, 'text') for p in value
        )
    return isinstance(value, str) and bool(value.strip())
