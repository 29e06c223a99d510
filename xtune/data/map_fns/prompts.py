"""A prompt and its completion, each a text or a list of messages; and pairs of columns under other names."""

from typing import Any

from ...messages import Conversation, Message, RowError, column, exchange
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import before_last_exchange, is_empty, is_messages, pairs, question_and_reply, structured
from .openai import openai_map_fn

# Columns of a question and its reply in data sets that people use, in this order of precedence.
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


def pair_in(row: dict) -> tuple[str, str] | None:
    """Return the names of the question and reply columns of `row`, in its own upper and lower case."""
    names = {str(name).lower(): str(name) for name in row}
    found = next((pair for pair in PAIRS if pair[0] in names and pair[1] in names), None)
    return found and (names[found[0]], names[found[1]])


@map_fn('pair')
def pair_map_fn(
    row: dict, question: str | None = None, answer: str | None = None, system: str | None = None
) -> list[Message]:
    r"""A question and its reply in two columns, such as `human` and `assistant`, `problem` and `solution`.

    Row:
        {"Human": "Name a prime number.", "Assistant": "7"}
    Result:
        user: "Name a prime number."
        assistant: "7"

    `question` and `answer` name the columns; without them they are looked for, in upper or lower case: human, user,
    question, problem, prompt, instruction, query, input or source; assistant, bot, gpt, solution, answer, response,
    completion, output or target. `system` is a name or a text.
    """
    found = pair_in(row) if question is None or answer is None else (question, answer)
    if found is None:
        raise RowError('no column of a question and its reply', f'the columns are {", ".join(map(str, row))}')
    return question_and_reply(row, (question or found[0],), answer or found[1], system)


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

    The replies of the completion are trained, those of the prompt are not. The column of the completion may also be
    called `response`. `tools` are used. `system`, a name or a text, is for rows without a system message.
    """
    name = 'completion' if 'completion' in row else 'response'
    context, answer = _messages(row, 'prompt', 'user'), _messages(row, name, 'assistant')
    given = openai_map_fn({'messages': context + answer} | {key: row[key] for key in ('tools',) if key in row})
    trained = sum(message.get('role') == 'assistant' for message in answer)
    replies = [i for i, message in enumerate(given.messages) if message['role'] == 'assistant']
    messages = list(given.messages)
    for index in replies[: len(replies) - trained]:
        messages[index] = {**messages[index], 'train': False}
    if system and messages and messages[0]['role'] != 'system':
        messages.insert(0, {'role': 'system', 'content': system_text(system)})
    return Conversation(messages, given.tools, given.notes)


@map_fn('query_response')
def query_response_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Queries, responses and earlier exchanges, as in ms-swift.

    Row:
        {"system": "Be brief.", "query": "How deep is the well?", "response": "7 metres.",
         "history": [["Hi", "Hello!"]]}
    Result:
        system: "Be brief."
        user: "Hi"
        assistant: "Hello!"
        user: "How deep is the well?"
        assistant: "7 metres."

    `history` holds pairs of earlier question and reply. `system`, a name or a text, is for rows whose column `system`
    is empty.
    """
    own = column(row, 'system') if 'system' in row else ''
    return before_last_exchange(question_and_reply(row, ('query',), 'response', system, own), pairs(row))


@map_fn('dolly')
def dolly_map_fn(row: dict, system: str | None = None) -> list[Message]:
    r"""Instructions with an optional context and a response, as in Dolly.

    Row:
        {"instruction": "When do the ships leave?", "context": "Note 0: ships leave at dawn.",
         "response": "At dawn.", "category": "closed_qa"}
    Result:
        user: "When do the ships leave?\n\nNote 0: ships leave at dawn."
        assistant: "At dawn."

    The context, or the column `input`, follows the instruction after an empty line. `system` is a name or a text.
    """
    parts = [column(row, name) for name in ('instruction', 'context', 'input') if name in row]
    question = '\n\n'.join(part for part in parts if not is_empty(part))
    return exchange(question, column(row, 'response'), system and system_text(system))


def _messages(row: dict, name: str, role: str) -> list[Any]:
    value = structured(row, name)
    if isinstance(value, dict):
        return [value]
    return value if is_messages(value) else [{'role': role, 'content': column(row, name)}]
