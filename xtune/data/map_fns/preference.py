"""Preference pairs: xtune trains on one of the two responses."""

from typing import Any

from ...errors import ConfigError
from ...messages import Conversation, RowError, column
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import is_empty, is_messages, json_column, list_column
from .openai import openai_map_fn
from .sharegpt import sharegpt_map_fn

_RESPONSES = ('chosen', 'rejected')


@map_fn('preference')
def preference_map_fn(row: dict, reply: str = 'chosen', system: str | None = None) -> Conversation:
    r"""Preference pairs; the chosen response is trained.

    Row:
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"},
                           {"from": "human", "value": "Name a prime."}],
         "chosen": {"from": "gpt", "value": "7"}, "rejected": {"from": "gpt", "value": "8"}}
    Result:
        user: "Hi"
        assistant: "Hello!" {"train": false}
        user: "Name a prime."
        assistant: "7"

    The context is in `conversations` (ShareGPT turns), in `prompt` or `question` (a text, or OpenAI messages), or in
    `instruction` and `input` (Alpaca). `chosen` and `rejected` contain a text, a message or a list of messages. A list
    that starts with a user message is the complete conversation, and its last message is the response. Earlier
    assistant messages are not trained. The column `system`, or else the argument (the name of a built-in system prompt
    or a text), is used for rows without a system message. `reply` is 'chosen' or 'rejected'.
    """
    if reply not in _RESPONSES:
        raise ConfigError(f'reply={reply!r} of map function `preference`: must be one of {", ".join(_RESPONSES)}')
    answer = _entries(row, reply)
    if len(answer) > 1 and _speaker(answer[0]) not in ('assistant', 'gpt'):
        context, answer = answer[:-1], answer[-1:]
    else:
        context = _context(row)
    conversation = _mapped(row, context, answer)
    messages = [
        {**message, 'train': False} if message['role'] == 'assistant' else message
        for message in conversation.messages[: -len(answer)]
    ]
    text = (column(row, 'system') if 'system' in row else '') or (system and system_text(system))
    if text and messages and messages[0]['role'] != 'system':
        messages.insert(0, {'role': 'system', 'content': text})
    return Conversation(messages + conversation.messages[-len(answer) :], conversation.tools, conversation.notes)


@map_fn('orpo_dpo_mix_40k')
def orpo_dpo_mix_40k_map_fn(row: dict, reply: str = 'chosen', system: str | None = None) -> Conversation:
    r"""Preference pairs of complete conversations, as in orpo-dpo-mix-40k and UltraFeedback.

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
    r"""Preference pairs in the format of OpenAI's fine-tuning API.

    Row:
        {"input": {"messages": [{"role": "user", "content": "Name a prime."}], "tools": [],
                   "parallel_tool_calls": true},
         "preferred_output": [{"role": "assistant", "content": "7"}],
         "non_preferred_output": [{"role": "assistant", "content": "8"}]}
    Result:
        user: "Name a prime."
        assistant: "7"

    `reply` is 'chosen' (the column `preferred_output`) or 'rejected'. `system` is the name of a built-in system prompt
    or a text.
    """
    context = json_column(row, 'input')
    if not isinstance(context, dict) or not isinstance(context.get('messages'), list):
        raise RowError('column `input` does not contain messages', f'it is {str(context)[:60]!r}')
    name = {'chosen': 'preferred_output', 'rejected': 'non_preferred_output'}.get(reply)
    preference_row = {'prompt': context['messages'], reply: list_column(row, name) if name else None}
    tools = {'tools': context['tools']} if context.get('tools') else {}
    return preference_map_fn(preference_row | tools, reply, system)


def _entries(row: dict, reply: str) -> list:
    """Return the response as a list of messages or turns."""
    value = row.get(reply)
    if isinstance(value, str):
        parsed = json_column(row, reply)  # a plain text may look like JSON
        value = parsed if _speaker(parsed[0] if isinstance(parsed, list) and parsed else parsed) else None
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list) and value:
        return value
    return [{'role': 'assistant', 'content': column(row, reply)}]


def _context(row: dict) -> list:
    """Return the context of the response as messages or turns."""
    if 'conversations' in row:
        return list_column(row, 'conversations')
    if not {'prompt', 'question'} & row.keys() and 'instruction' in row:
        parts = [column(row, name) for name in ('instruction', 'input') if name in row]
        return [{'role': 'user', 'content': '\n'.join(part for part in parts if part)}]
    name = next((name for name in ('prompt', 'question') if name in row and not is_empty(row[name])), 'prompt')
    value = json_column(row, name)
    return value if is_messages(value) else [{'role': 'user', 'content': column(row, name)}]


def _mapped(row: dict, context: list, answer: list) -> Conversation:
    """Return the conversation of `context` and `answer`; it ends with the messages of `answer`."""
    extra = {name: row[name] for name in ('tools', 'functions') if name in row}
    if any(isinstance(entry, dict) and 'from' in entry for entry in context + answer):
        turns = [_turn(entry) for entry in context + answer]
        conversation = sharegpt_map_fn({'conversations': turns} | extra)
    else:
        conversation = openai_map_fn({'messages': context + answer} | extra)
    if not conversation.messages or conversation.messages[-1]['role'] != 'assistant':
        raise RowError('reply missing', 'the last message is not from the assistant')
    return conversation


def _turn(entry: Any) -> Any:
    is_message = isinstance(entry, dict) and 'from' not in entry and {'role', 'content'} <= set(entry)
    return {'from': entry['role'], 'value': entry['content']} if is_message else entry


def _speaker(entry: Any) -> Any:
    return entry.get('role', entry.get('from')) if isinstance(entry, dict) else None
