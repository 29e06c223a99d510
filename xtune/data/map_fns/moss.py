"""MOSS: turns of tagged texts, with inner thoughts, commands and their results."""

from typing import Any

from ...messages import Message, RowError, column
from ...registry import map_fn

# Field of a turn -> its opening and closing tag.
_TAGS = {
    'Human': ('<|Human|>:', '<eoh>'),
    'Inner Thoughts': ('<|Inner Thoughts|>:', '<eot>'),
    'Commands': ('<|Commands|>:', '<eoc>'),
    'Tool Responses': ('<|Results|>:', '<eor>'),
    'MOSS': ('<|MOSS|>:', '<eom>'),
}
_NOTHING = 'None'


@map_fn('moss_sft')
def moss_sft_map_fn(row: dict, bot_name: str | None = None) -> list[Message]:
    r"""MOSS conversations with and without plugins, as in moss-003-sft-data.

    Row:
        {"conversation_id": 33, "meta_instruction": "You are an AI assistant whose name is MOSS.\n", "num_turns": 1,
         "chat": {"turn_1": {"Human": "<|Human|>: What is 500 / 3?<eoh>\n",
                             "Inner Thoughts": "<|Inner Thoughts|>: I should calculate.<eot>\n",
                             "Commands": "<|Commands|>: Calculate(\"500/3\")<eoc>\n",
                             "Tool Responses": "<|Results|>:\nCalculate(\"500/3\") => '166.67'\n<eor>\n",
                             "MOSS": "<|MOSS|>: About 166.67.<eom>\n"}}, "category": "tool"}
    Result:
        system: "You are an AI assistant whose name is MOSS."
        user: "What is 500 / 3?"
        assistant: "<|Inner Thoughts|>: I should calculate.<eot>\n<|Commands|>: Calculate(\"500/3\")<eoc>"
        tool: "Calculate(\"500/3\") => '166.67'"
        assistant: "About 166.67."

    A turn whose thoughts and commands are both "None" is a question and a response. User messages are not trained.
    `bot_name` replaces "MOSS" in all texts.
    """
    chat = row.get('chat')
    if not isinstance(chat, dict):
        raise RowError('column `chat` is not an object of turns', f'it contains a {type(chat).__name__}')
    system = column(row, 'meta_instruction').strip()
    messages = [{'role': 'system', 'content': system}] if system else []
    for number in range(1, _turns(row, chat) + 1):
        messages += _turn(chat.get(f'turn_{number}'), f'turn_{number}')
    if bot_name is None:
        return messages
    return [{**message, 'content': message['content'].replace('MOSS', bot_name)} for message in messages]


def _turns(row: dict, chat: dict) -> int:
    number = row.get('num_turns', len(chat))
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number or number < 1:
        raise RowError('column `num_turns` is not a number of turns', f'it contains {number!r:.40}')
    return int(number)


def _turn(turn: Any, place: str) -> list[Message]:
    if not isinstance(turn, dict):
        raise RowError('a turn is missing', f'`{place}` is {str(turn)[:60]!r}')
    human, response = (_text(turn, key, place) for key in ('Human', 'MOSS'))
    thoughts, commands, result = (
        _text(turn, key, place) if turn.get(key) is not None else _NOTHING
        for key in ('Inner Thoughts', 'Commands', 'Tool Responses')
    )
    messages = [{'role': 'user', 'content': human}]
    if thoughts != _NOTHING or commands != _NOTHING:
        content = f'<|Inner Thoughts|>: {thoughts}<eot>\n<|Commands|>: {commands}<eoc>'
        messages += [{'role': 'assistant', 'content': content}, {'role': 'tool', 'content': result}]
    return [*messages, {'role': 'assistant', 'content': response}]


def _text(turn: dict, key: str, place: str) -> str:
    """Return the text of field `key` without its tags."""
    value = turn.get(key)
    if not isinstance(value, str):
        raise RowError('a turn is incomplete', f'`{place}` has no text `{key}`')
    opening, closing = _TAGS[key]
    return value.strip().removeprefix(opening).removesuffix(closing).strip()
