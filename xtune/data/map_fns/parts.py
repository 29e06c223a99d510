"""Read message content that is a list of parts, in the formats of OpenAI, Anthropic, Bedrock and Gemini.

| part      | OpenAI                             | Anthropic        | Bedrock          | Gemini             |
|-----------|------------------------------------|------------------|------------------|--------------------|
| text      | type text, input_text, output_text | type text        | text             | text               |
| refusal   | type refusal                       |                  |                  |                    |
| reasoning |                                    | type thinking    | reasoningContent | text, thought true |
| call      |                                    | type tool_use    | toolUse          | functionCall       |
| result    |                                    | type tool_result | toolResult       | functionResponse   |
"""

import json
from dataclasses import dataclass, field
from typing import Any

from ...messages import Message, RowError
from .tools import tool_calls

_TEXTS = ('text', 'input_text', 'output_text')
_REASONING = ('thinking', 'reasoning', 'thought')


@dataclass
class ContentParts:
    """The parts of one message by type."""

    texts: list[str] = field(default_factory=list)
    reasoning_texts: list[str] = field(default_factory=list)
    calls: list[dict] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All texts, concatenated."""
        return ''.join(self.texts)

    @property
    def reasoning(self) -> str:
        """All reasoning texts, one per line."""
        return '\n'.join(self.reasoning_texts)


def read_parts(content: list, place: str) -> ContentParts:
    """Return the parts in `content` by type. `place` names the message in errors.

    Raises:
        RowError: A part has another type than those above, such as an image.
    """
    parts = ContentParts()
    for number, part in enumerate(content, 1):
        where = f'part {number} of {place}'
        if isinstance(part, str):
            parts.texts.append(part)
        elif not isinstance(part, dict) or not (_typed(part, where, parts) or _keyed(part, where, parts)):
            shown = part.get('type') or next(iter(part), 'empty') if isinstance(part, dict) else type(part).__name__
            raise RowError(
                'content is not text', f'{where} is {shown}; xtune trains text models: leave such rows or parts out'
            )
    return parts


def content_text(value: Any, place: str) -> str:
    """Return the text of `value`: a string, a list of parts, or an object with parts.

    Raises:
        RowError: It is something else.
    """
    if isinstance(value, dict) and 'parts' in value:
        value.get('role')  # read, so that the field is not reported as unused
        value = value['parts']
    if isinstance(value, list):
        return read_parts(value, place).text
    if not isinstance(value, str):
        raise RowError('content is not text', f'{place} is {type_name(value)}')
    return value


def type_name(value: Any) -> str:
    """Return the type of a value that should be text, in words."""
    return 'null' if value is None else f'a {type(value).__name__}'


def _typed(part: dict, where: str, parts: ContentParts) -> bool:
    """Add a part with a known `type` field to `parts`; return whether it has one."""
    part_type = part.get('type')
    if part_type in _TEXTS:
        parts.texts.append(_string(part.get('text'), where))
    elif part_type == 'refusal':
        parts.texts.append(_string(part.get('refusal'), where))
    elif part_type in _REASONING:
        parts.reasoning_texts.append(_string(part.get(part_type, part.get('text')), where))
        part.get('signature')  # the vendor's signature, useless to another model; read, so that it is not reported
    elif part_type == 'tool_use':
        parts.calls += tool_calls(part, where)
    elif part_type == 'tool_result':
        parts.results.append(_result(part.get('content'), part.get('tool_use_id'), where))
    else:
        return False
    return True


def _keyed(part: dict, where: str, parts: ContentParts) -> bool:
    """Add a part whose key is its type to `parts`; return whether the key is known."""
    if part.get('type') is not None:
        return False
    if isinstance(part.get('text'), str):
        (parts.reasoning_texts if part.get('thought') is True else parts.texts).append(part['text'])
    elif call := part.get('toolUse') or part.get('functionCall') or part.get('function_call'):
        parts.calls += tool_calls(call, where)
    elif isinstance(result := part.get('toolResult'), dict):
        parts.results.append(_result(result.get('content'), result.get('toolUseId'), where))
    elif isinstance(result := part.get('functionResponse') or part.get('function_response'), dict):
        parts.results.append(_result([{'json': result.get('response')}], None, where) | {'name': result.get('name')})
    elif isinstance(reasoning := part.get('reasoningContent'), dict):
        parts.reasoning_texts.append(_string((reasoning.get('reasoningText') or {}).get('text'), where))
    else:
        return False
    return True


def _result(content: Any, call_id: Any, where: str) -> Message:
    if isinstance(content, list):
        texts = [
            json.dumps(item['json'], ensure_ascii=False)
            if isinstance(item, dict) and 'json' in item
            else content_text([item], where)
            for item in content
        ]
        content = '\n'.join(texts)
    message = {'role': 'tool', 'content': '' if content is None else content_text(content, where)}
    return message if call_id is None else message | {'tool_call_id': call_id}


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError('content is not text', f'{where} is {type_name(value)}')
    return value
