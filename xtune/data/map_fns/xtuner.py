"""Conversations in the format of XTuner v0.1."""

from typing import Any

from ...messages import Message, RowError, exchange
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import is_empty, list_column
from .turns import train_flag


@map_fn('xtuner')
def xtuner_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Turns of input and output, the format of XTuner v0.1.

    Row:
        {"conversation": [{"system": "You are a gardener.", "input": "When do I cut hedges?",
                           "output": "In late winter."},
                          {"input": "And roses?", "output": "In spring.", "output_with_loss": true}]}
    Result:
        system: "You are a gardener."
        user: "When do I cut hedges?"
        assistant: "In late winter."
        user: "And roses?"
        assistant: "In spring." {"train": true}

    A single turn with an empty input and no system text is plain text for pretraining: all of it is trained. A turn
    whose `output_with_loss` is false is not trained. `system`, the name of a built-in system prompt or a text, is used
    for rows without a system text.
    """
    turns = list_column(row, 'conversation', 'conversations')
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or 'output' not in turn:
            raise RowError('turn without input or output', f'turn {number} is {str(turn)[:60]!r}')
    if len(turns) == 1 and is_empty(turns[0].get('input')) and is_empty(turns[0].get('system')):
        return [{'role': 'text', 'content': _text(turns[0], 'output', 'turn 1').strip()}]
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        messages += _turn(turn, f'turn {number}')
    if system and messages and messages[0]['role'] != 'system':
        messages.insert(0, {'role': 'system', 'content': system_text(system)})
    return messages


def _turn(turn: dict, place: str) -> list[Message]:
    question, response = _text(turn, 'input', place), _text(turn, 'output', place)
    if not question.strip():
        raise RowError('empty input', f'{place}; only a single turn of pretraining text may have none')
    system = '' if is_empty(turn.get('system')) else _text(turn, 'system', place)
    flags = {'train': turn['output_with_loss']} if 'output_with_loss' in turn else {}
    *before, answer = exchange(question, response, system)
    return [*before, {**answer, **train_flag(flags, place)}]


def _text(turn: dict, key: str, place: str) -> str:
    value: Any = turn.get(key)
    if value is None:
        return ''
    if not isinstance(value, str):
        raise RowError('content is not text', f'`{key}` of {place} is a {type(value).__name__}')
    return value
