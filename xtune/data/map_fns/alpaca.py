"""Alpaca and data sets in its format: an instruction, an optional input, an output."""

from ...messages import Message, RowError, column
from ...registry import map_fn
from .columns import history_messages, insert_before_last_exchange, question_and_response


@map_fn('alpaca')
def alpaca_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Instructions with an optional input, as in Alpaca and Open-Platypus.

    Row:
        {"instruction": "Add the numbers.", "input": "2, 3", "output": "5"}
    Result:
        user: "Add the numbers.\n2, 3"
        assistant: "5"

    An empty input adds no newline, and an output of "<nooutput>" is an empty reply. Columns `system` and `history`
    (pairs of an earlier question and response) are used if present. `system` is the name of a built-in system prompt
    or a text; the column takes precedence.
    """
    row_system = column(row, 'system') if 'system' in row else ''
    return insert_before_last_exchange(_instruction(row, '', system, row_system), history_messages(row))


@map_fn('alpaca_zh')
def alpaca_zh_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Alpaca in Chinese; the English columns are ignored.

    Row:
        {"instruction_zh": "给出三个保持健康的小贴士。", "input_zh": "", "output_zh": "1. 均衡饮食。",
         "instruction": "Give three tips for staying healthy.", "input": "", "output": "1. Eat a balanced diet."}
    Result:
        user: "给出三个保持健康的小贴士。"
        assistant: "1. 均衡饮食。"

    `system` is the name of a built-in system prompt or a text.
    """
    return _instruction(row, '_zh', system)


@map_fn('medical')
def medical_map_fn(row: dict, system: str | None = 'medical') -> list[Message]:
    r"""Chinese medical questions, as in shibing624/medical.

    Row:
        {"instruction": "血热的临床表现是什么?", "input": "", "output": "初发或复发病不久。"}
    Result:
        system: "如果你是一名医生，请根据患者的描述回答医学问题。"
        user: "血热的临床表现是什么?"
        assistant: "初发或复发病不久。"

    `system` is the name of a built-in system prompt or a text; None: no system message.
    """
    return _instruction(row, '', system)


def _instruction(row: dict, suffix: str, system: str | None, row_system: str = '') -> list[Message]:
    instruction, extra_input, output = (f'{name}{suffix}' for name in ('instruction', 'input', 'output'))
    questions = (instruction, extra_input) if extra_input in row else (instruction,)
    messages = question_and_response(row, questions, output, system, row_system)
    if messages[-1]['content'].strip() == '<nooutput>':
        raise RowError('empty reply', f'the {output} is "<nooutput>"')
    return messages
