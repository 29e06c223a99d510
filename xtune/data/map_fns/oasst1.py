"""OpenAssistant, the Guanaco subset: complete dialogues in one text column."""

import re

from ...messages import Message, RowError, column
from ...registry import map_fn

_TURN = re.compile(r'### (Human|Assistant):')


@map_fn('oasst1')
def oasst1_map_fn(row: dict) -> list[Message]:
    r"""Dialogues in one text, as in openassistant-guanaco.

    Row:
        {"text": "### Human: What is a monopsony?### Assistant: A market with one buyer.### Human: Thanks"}
    Result:
        user: "What is a monopsony?"
        assistant: "A market with one buyer."

    Only "### Human:" and "### Assistant:" start a new turn, so other Markdown headings stay in the text. A last
    question without a response is left out.
    """
    segments = _TURN.split(column(row, 'text'))
    if len(segments) < 3:
        raise RowError('no "### Human:" and "### Assistant:" turns')
    roles = ({'Human': 'user', 'Assistant': 'assistant'}[name] for name in segments[1::2])
    return [{'role': role, 'content': text.strip()} for role, text in zip(roles, segments[2::2], strict=True)]
