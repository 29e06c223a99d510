"""Preference pairs: xtune trains on one of the two replies."""

from typing import Any

from ...errors import ConfigError
from ...messages import Conversation, RowError, column
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import is_empty, is_messages, listed, structured
from .openai import openai_map_fn
from .sharegpt import sharegpt_map_fn

_REPLIES = ('chosen', 'rejected')


@map_fn('preference')
def preference_map_fn(row: dict, reply: str = 'chosen', system: str | None = None) -> Conversation:
    r"""Preference pairs of which the chosen reply is trained.

    Row:
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"},
                           {"from": "human", "value": "Name a prime."}],
         "chosen": {"from": "gpt", "value": "7"}, "rejected": {"from": "gpt", "value": "8"}}
    Result:
        user: "Hi"
        assistant: "Hello!" {"train": false}
        user: "Name a prime."
        assistant: "7"

    What comes before is in `conversations` (ShareGPT turns), in `prompt` or `question` (a text, or OpenAI messages),
    or in `instruction` and `input` (Alpaca); `chosen` and `rejected` hold a text, a message or a list of messages. A
    list that starts with a question is the whole conversation, whose last message is the reply. Earlier replies are
    context. A column `system`, or else the argument (a name or a text), is for rows without a system message. `reply`
    is 'chosen' or 'rejected'.
    """
    if reply not in _REPLIES:
        raise ConfigError(f'reply={reply!r} of the map function `preference` is none of {", ".join(_REPLIES)}')
    answer = _entries(row, reply)
    if len(answer) > 1 and _speaker(answer[0]) not in ('assistant', 'gpt'):
        context, answer = answer[:-1], answer[-1:]
    else:
        context = _context(row)
    given = _mapped(row, context, answer)
    messages = [
        {**message, 'train': False} if message['role'] == 'assistant' else message
        for message in given.messages[: -len(answer)]
    ]
    text = (column(row, 'system') if 'system' in row else '') or (system and system_text(system))
    if text and messages and messages[0]['role'] != 'system':
        messages.insert(0, {'role': 'system', 'content': text})
    return Conversation(messages + given.messages[-len(answer) :], given.tools, given.notes)


@map_fn('orpo_dpo_mix_40k')
def orpo_dpo_mix_40k_map_fn(row: dict, reply: str = 'chosen', system: str | None = None) -> Conversation:
    r"""Preference pairs of whole conversations, as in orpo-dpo-mix-40k and UltraFeedback.

    Row:
        {"source": "Airoboros", "prompt": "Name a prime.", "question": "Name a prime.",
         "chosen": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "7"}],
         "rejected": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "8"}]}
    Result:
        user: "Name a prime."
        assistant: "7"

    The same as the format `preference`.
    """
    return preference_map_fn(row, reply, system)


@map_fn('openai_preference')
def openai_preference_map_fn(row: dict, reply: str = 'chosen', system: str | None = None) -> Conversation:
    r"""Preference pairs as OpenAI's fine-tuning takes them.

    Row:
        {"input": {"messages": [{"role": "user", "content": "Name a prime."}], "tools": [],
                   "parallel_tool_calls": true},
         "preferred_output": [{"role": "assistant", "content": "7"}],
         "non_preferred_output": [{"role": "assistant", "content": "8"}]}
    Result:
        user: "Name a prime."
        assistant: "7"

    `reply` is 'chosen' (the column `preferred_output`) or 'rejected'. `system` is a name or a text.
    """
    given = structured(row, 'input')
    if not isinstance(given, dict) or not isinstance(given.get('messages'), list):
        raise RowError('column `input` holds no messages', f'it is {str(given)[:60]!r}')
    name = {'chosen': 'preferred_output', 'rejected': 'non_preferred_output'}.get(reply)
    made = {'prompt': given['messages'], reply: listed(row, name) if name else None}
    return preference_map_fn(made | ({'tools': given['tools']} if given.get('tools') else {}), reply, system)


def _entries(row: dict, reply: str) -> list:
    """Return the reply as a list of messages or turns."""
    value = row.get(reply)
    if isinstance(value, str):
        found = structured(row, reply)  # a text may look like JSON, too
        value = found if _speaker(found[0] if isinstance(found, list) and found else found) else None
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list) and value:
        return value
    return [{'role': 'assistant', 'content': column(row, reply)}]


def _context(row: dict) -> list:
    """Return what comes before the reply, as messages or turns."""
    if 'conversations' in row:
        return listed(row, 'conversations')
    if not {'prompt', 'question'} & row.keys() and 'instruction' in row:
        parts = [column(row, name) for name in ('instruction', 'input') if name in row]
        return [{'role': 'user', 'content': '\n'.join(part for part in parts if part)}]
    name = next((name for name in ('prompt', 'question') if name in row and not is_empty(row[name])), 'prompt')
    value = structured(row, name)
    return value if is_messages(value) else [{'role': 'user', 'content': column(row, name)}]


def _mapped(row: dict, context: list, answer: list) -> Conversation:
    """Return the conversation of `context` and `answer`, which ends with the messages of `answer`."""
    extra = {name: row[name] for name in ('tools', 'functions') if name in row}
    if any(isinstance(entry, dict) and 'from' in entry for entry in context + answer):
        turns = [_turn(entry) for entry in context + answer]
        given = sharegpt_map_fn({'conversations': turns} | extra)
    else:
        given = openai_map_fn({'messages': context + answer} | extra)
    if not given.messages or given.messages[-1]['role'] != 'assistant':
        raise RowError('reply missing', "the last message is not the assistant's")
    return given


def _turn(entry: Any) -> Any:
    is_message = isinstance(entry, dict) and 'from' not in entry and {'role', 'content'} <= set(entry)
    return {'from': entry['role'], 'value': entry['content']} if is_message else entry


def _speaker(entry: Any) -> Any:
    return entry.get('role', entry.get('from')) if isinstance(entry, dict) else None
