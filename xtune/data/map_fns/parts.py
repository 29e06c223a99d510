"""The content of a message as a list of parts, as OpenAI, Anthropic, Bedrock and Gemini write it.

| part     | OpenAI                              | Anthropic     | Bedrock            | Gemini             |
|----------|-------------------------------------|---------------|--------------------|--------------------|
| text     | type text, input_text, output_text  | type text     | text               | text               |
| refusal  | type refusal                        |               |                    |                    |
| thought  |                                     | type thinking | reasoningContent   | text, thought true |
| call     |                                     | type tool_use | toolUse            | functionCall       |
| result   |                                     | type tool_result | toolResult      | functionResponse   |
"""

import json
from dataclasses import dataclass, field
from typing import Any

from ...messages import Message, RowError
from .tools import calls

_TEXTS = ('text', 'input_text', 'output_text')
_THOUGHTS = ('thinking', 'reasoning', 'thought')


@dataclass
class Parts:
    """What the parts of one message hold."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All texts, one after the other."""
        return ''.join(self.texts)

    @property
    def thought(self) -> str:
        """All thoughts, one a line."""
        return '\n'.join(self.thoughts)


def read_parts(content: list, place: str) -> Parts:
    """Return what the parts in `content` hold; `place` names the message in errors.

    Raises:
        RowError: A part is none of the kinds above, such as an image.
    """
    parts = Parts()
    for number, part in enumerate(content, 1):
        where = f'part {number} of {place}'
        if isinstance(part, str):
            parts.texts.append(part)
        elif not isinstance(part, dict) or not (_typed(part, where, parts) or _keyed(part, where, parts)):
            kind = part.get('type') or next(iter(part), 'nothing') if isinstance(part, dict) else type(part).__name__
            raise RowError(
                'content is not text', f'{where} is {kind}; xtune trains text models: leave such rows or parts out'
            )
    return parts


def text_of(value: Any, place: str) -> str:
    """Return a text that is given as it is, as parts, or as an object with parts.

    Raises:
        RowError: It holds something else.
    """
    if isinstance(value, dict) and 'parts' in value:
        value.get('role')  # of a text there is none to tell
        value = value['parts']
    if isinstance(value, list):
        return read_parts(value, place).text
    if not isinstance(value, str):
        raise RowError('content is not text', f'{place} holds {kind_of(value)}')
    return value


def kind_of(value: Any) -> str:
    """Return what kind of value stands where a text should, in words."""
    return 'nothing' if value is None else f'a {type(value).__name__}'


def _typed(part: dict, where: str, parts: Parts) -> bool:
    """Add a part that says its `type`; tell whether it does."""
    kind = part.get('type')
    if kind in _TEXTS:
        parts.texts.append(_string(part.get('text'), where))
    elif kind == 'refusal':
        parts.texts.append(_string(part.get('refusal'), where))
    elif kind in _THOUGHTS:
        parts.thoughts.append(_string(part.get(kind, part.get('text')), where))
        part.get('signature')  # a seal of the vendor, of no use to another model
    elif kind == 'tool_use':
        parts.calls += calls(part, where)
    elif kind == 'tool_result':
        parts.results.append(_result(part.get('content'), part.get('tool_use_id'), where))
    else:
        return False
    return True


def _keyed(part: dict, where: str, parts: Parts) -> bool:
    """Add a part whose key says what it is; tell whether it does."""
    if part.get('type') is not None:
        return False
    if isinstance(part.get('text'), str):
        (parts.thoughts if part.get('thought') is True else parts.texts).append(part['text'])
    elif found := part.get('toolUse') or part.get('functionCall') or part.get('function_call'):
        parts.calls += calls(found, where)
    elif isinstance(found := part.get('toolResult'), dict):
        parts.results.append(_result(found.get('content'), found.get('toolUseId'), where))
    elif isinstance(found := part.get('functionResponse') or part.get('function_response'), dict):
        parts.results.append(_result([{'json': found.get('response')}], None, where) | {'name': found.get('name')})
    elif isinstance(found := part.get('reasoningContent'), dict):
        parts.thoughts.append(_string((found.get('reasoningText') or {}).get('text'), where))
    else:
        return False
    return True


def _result(content: Any, identity: Any, where: str) -> Message:
    if isinstance(content, list):
        texts = [
            json.dumps(item['json'], ensure_ascii=False)
            if isinstance(item, dict) and 'json' in item
            else text_of([item], where)
            for item in content
        ]
        content = '\n'.join(texts)
    message = {'role': 'tool', 'content': '' if content is None else text_of(content, where)}
    return message if identity is None else message | {'tool_call_id': identity}


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError('content is not text', f'{where} holds {kind_of(value)}')
    return value
