"""A prompt and its completion, each a text or a list of messages, and question and answer columns of other names."""

from typing import Any

from ...messages import Conversation, Message, RowError, column, exchange
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import (
    history_messages,
    insert_before_last_exchange,
    is_empty,
    is_messages,
    json_column,
    question_and_response,
)
from .openai import openai_map_fn

# Question and answer columns of common data sets, in order of precedence.
PAIRS = (
    ('human', 'assistant'),
    ('user', 'assistant'),
    ('human', 'bot'),
    ('user', 'bot'),
    ('human', 'gpt'),
    ('question', 'solution'),
    ('problem', 'solution'),
    ('problem', 'answer'),
    ('question', 'response'),
    ('question', 'output'),
    ('prompt', 'response'),
    ('prompt', 'completion'),
    ('prompt', 'answer'),
    ('prompt', 'output'),
    ('prompt', 'target'),
    ('instruction', 'output'),
    ('instruction', 'response'),
    ('instruction', 'answer'),
    ('instruction', 'completion'),
    ('instruction', 'target'),
    ('query', 'answer'),
    ('query', 'output'),
    ('input', 'output'),
    ('input', 'response'),
    ('input', 'answer'),
    ('input', 'target'),
    ('inputs', 'targets'),
    ('source', 'target'),
)


def question_answer_columns(row: dict) -> tuple[str, str] | None:
    """Return the names of the question and answer columns of `row`, spelled as in the row; None if it has none."""
    names = {str(name).lower(): str(name) for name in row}
    pair = next((pair for pair in PAIRS if pair[0] in names and pair[1] in names), None)
    return pair and (names[pair[0]], names[pair[1]])


@map_fn('pair')
def pair_map_fn(
    row: dict, question: str | None = None, answer: str | None = None, system: str | None = None
) -> list[Message]:
    r"""A question and its answer in two columns, such as `human` and `assistant`, `problem` and `solution`.

    Row:
        {"Human": "Name a prime number.", "Assistant": "7"}
    Result:
        user: "Name a prime number."
        assistant: "7"

    `question` and `answer` name the columns. By default they are detected, in upper or lower case: human, user,
    question, problem, prompt, instruction, query, input or source; assistant, bot, gpt, solution, answer, response,
    completion, output or target. `system` is the name of a built-in system prompt or a text.
    """
    pair = question_answer_columns(row) if question is None or answer is None else (question, answer)
    if pair is None:
        raise RowError('no question and answer columns', f'the columns are {", ".join(map(str, row))}')
    return question_and_response(row, (question or pair[0],), answer or pair[1], system)


@map_fn('prompt_completion')
def prompt_completion_map_fn(row: dict, system: str | None = None) -> Conversation:
    r"""A prompt and its completion as lists of messages, as in TRL; one of them may be a text.

    Row:
        {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How high is mast 0?"}],
         "completion": [{"role": "assistant", "content": "10 metres."}]}
    Result:
        system: "Be brief."
        user: "How high is mast 0?"
        assistant: "10 metres."

    Assistant messages of the completion are trained, those of the prompt are not. The completion column may also be
    called `response`. `tools` are used. `system`, the name of a built-in system prompt or a text, is used for rows
    without a system message.
    """
    name = 'completion' if 'completion' in row else 'response'
    context, answer = _messages(row, 'prompt', 'user'), _messages(row, name, 'assistant')
    conversation = openai_map_fn({'messages': context + answer} | {key: row[key] for key in ('tools',) if key in row})
    num_trained = sum(message.get('role') == 'assistant' for message in answer)
    responses = [i for i, message in enumerate(conversation.messages) if message['role'] == 'assistant']
    messages = list(conversation.messages)
    for index in responses[: len(responses) - num_trained]:
        messages[index] = {**messages[index], 'train': False}
    if system and messages and messages[0]['role'] != 'system':
        messages.insert(0, {'role': 'system', 'content': system_text(system)})
    return Conversation(messages, conversation.tools, conversation.notes)


@map_fn('query_response')
def query_response_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Queries, responses and earlier turns, as in ms-swift.

    Row:
        {"system": "Be brief.", "query": "How deep is the well?", "response": "7 metres.",
         "history": [["Hi", "Hello!"]]}
    Result:
        system: "Be brief."
        user: "Hi"
        assistant: "Hello!"
        user: "How deep is the well?"
        assistant: "7 metres."

    `history` contains pairs of an earlier question and response. `system`, the name of a built-in system prompt or a
    text, is used for rows whose column `system` is empty.
    """
    row_system = column(row, 'system') if 'system' in row else ''
    messages = question_and_response(row, ('query',), 'response', system, row_system)
    return insert_before_last_exchange(messages, history_messages(row))


@map_fn('dolly')
def dolly_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Instructions with an optional context and a response, as in Dolly.

    Row:
        {"instruction": "When do the ships leave?", "context": "Note 0: ships leave at dawn.",
         "response": "At dawn.", "category": "closed_qa"}
    Result:
        user: "When do the ships leave?\n\nNote 0: ships leave at dawn."
        assistant: "At dawn."

    The context, or the column `input`, follows the instruction after an empty line. `system` is the name of a built-in
    system prompt or a text.
    """
    parts = [column(row, name) for name in ('instruction', 'context', 'input') if name in row]
    question = '\n\n'.join(part for part in parts if not is_empty(part))
    return exchange(question, column(row, 'response'), system and system_text(system))


def _messages(row: dict, name: str, role: str) -> list[Any]:
    value = json_column(row, name)
    if isinstance(value, dict):
        return [value]
    return value if is_messages(value) else [{'role': role, 'content': column(row, name)}]
