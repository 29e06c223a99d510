"""Data sets of one question column and one answer column, without a default system message."""

from ...messages import Message, column, exchange
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import question_and_response


@map_fn('default')
def default_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Columns `input` and `output`.

    Row:
        {"input": "Which gas do plants take in?", "output": "Carbon dioxide."}
    Result:
        user: "Which gas do plants take in?"
        assistant: "Carbon dioxide."

    `system` is the name of a built-in system prompt or a text.
    """
    return question_and_response(row, ('input',), 'output', system)


@map_fn('medqa')
def medqa_map_fn(
    row: dict, question: str = 'Question', answer: str = 'Answer', system: str | None = None
) -> list[Message]:
    r"""Questions and answers in two columns of any name, as in the MEDINFO 2019 medication spreadsheet.

    Row:
        {"Question": "how does rivastigmine interact with otc sleep medicine", "Focus (Drug)": "rivastigmine",
         "Answer": "tell your doctor what other medicines you take."}
    Result:
        user: "how does rivastigmine interact with otc sleep medicine"
        assistant: "tell your doctor what other medicines you take."

    `question` and `answer` name the columns. If a column does not exist, one that differs only in upper and lower case
    is used. `system` is the name of a built-in system prompt or a text.
    """
    texts = [column(row, _name(row, wanted)).strip() for wanted in (question, answer)]
    return exchange(*texts, system and system_text(system))


@map_fn('openorca')
def openorca_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Questions, each with its own system message, as in OpenOrca.

    Row:
        {"id": "niv.242684", "system_prompt": "You are an AI assistant.", "question": "What is 2 + 3?",
         "response": "5"}
    Result:
        system: "You are an AI assistant."
        user: "What is 2 + 3?"
        assistant: "5"

    `system`, the name of a built-in system prompt or a text, is used for rows whose `system_prompt` is empty.
    """
    return question_and_response(row, ('question',), 'response', system, column(row, 'system_prompt'))


@map_fn('prompt_response')
def prompt_response_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Columns `prompt` and `response`, or `completion`.

    Row:
        {"prompt": "Name a prime number.", "response": "7"}
    Result:
        user: "Name a prime number."
        assistant: "7"

    `system` is the name of a built-in system prompt or a text.
    """
    return question_and_response(row, ('prompt',), 'response' if 'response' in row else 'completion', system)


@map_fn('stack_exchange')
def stack_exchange_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Questions and responses, as in stack-exchange-instruction.

    Row:
        {"qid": 4, "question": "How do I add two lists?", "response": "Use the + operator.", "date": "2008/07/31",
         "metadata": ["https://stackoverflow.com/questions/4"]}
    Result:
        user: "How do I add two lists?"
        assistant: "Use the + operator."

    `system` is the name of a built-in system prompt or a text.
    """
    return question_and_response(row, ('question',), 'response', system)


def _name(row: dict, wanted: str) -> str:
    if wanted in row:
        return wanted
    return next((name for name in row if str(name).lower() == wanted.lower()), wanted)
