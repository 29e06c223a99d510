"""Alpaca: one instruction, an optional input, one output.

Row:     {"instruction": "Add the numbers.", "input": "2, 3", "output": "5"}
Result:  user "Add the numbers.\\n2, 3", assistant "5"

Columns `system` and `history` (pairs of earlier question and reply) are used where they exist. An empty input adds no
newline, and an output of "<nooutput>" is an empty reply: both differ from XTuner v0.1 on purpose.
"""

from ...registry import map_fn
from ..conversation import Message, RowError, column, exchange


@map_fn('alpaca')
def alpaca_map_fn(row: dict) -> list[Message]:
    """Map one Alpaca row to a conversation."""
    reply = column(row, 'output')
    if reply == '<nooutput>':
        raise RowError('empty reply', 'the output is "<nooutput>"')
    parts = [column(row, 'instruction'), column(row, 'input') if 'input' in row else '']
    messages = exchange('\n'.join(part for part in parts if part), reply, row.get('system'))
    earlier: list[Message] = []
    for pair in row.get('history') or ():
        earlier += exchange(str(pair[0]), str(pair[1]))
    return messages[:-2] + earlier + messages[-2:]
