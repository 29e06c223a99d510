"""Short conversations that are rendered to test a template."""

from typing import NamedTuple

from ..messages import Message, exchange

TWO_EXCHANGES = exchange('What is 2+2?', '4.') + exchange('And 3+3?', '6.')
WITH_SYSTEM_MESSAGE, WITH_TOOL_CALL, WITH_REASONING = 'a system message', 'a tool call', 'reasoning'


class Probe(NamedTuple):
    """A conversation, its tools, and whether its prompts may be rendered with enable_thinking=True."""

    messages: list[Message]
    tools: list[dict] | None = None
    may_enable_thinking: bool = False


_CALL_ID = 'a1b2c3d4e'  # templates of Mistral require nine characters
_SCHEMA = {'type': 'object', 'properties': {'a': {'type': 'integer'}}, 'required': ['a']}
_TOOL = {'type': 'function', 'function': {'name': 'add_up', 'description': 'Add.', 'parameters': _SCHEMA}}
_CALL = {'type': 'function', 'id': _CALL_ID, 'function': {'name': 'add_up', 'arguments': {'a': 2}}}
_CALL_MESSAGES: list[Message] = [
    TWO_EXCHANGES[0],
    {'role': 'assistant', 'content': '', 'tool_calls': [_CALL]},
    {'role': 'tool', 'name': 'add_up', 'tool_call_id': _CALL_ID, 'content': '4'},
    *TWO_EXCHANGES[1:],
]
# The first assistant message is not trained: most templates leave out its reasoning.
_REASONING_MESSAGES: list[Message] = [
    m | dict(reasoning_content='A sum.', thinking='A sum.', train=i > 1) if m['role'] == 'assistant' else m
    for i, m in enumerate(TWO_EXCHANGES)
]
# The feature that a conversation contains -> the conversation.
PROBES = {
    WITH_SYSTEM_MESSAGE: Probe([{'role': 'system', 'content': 'Be brief.'}, *TWO_EXCHANGES]),
    WITH_TOOL_CALL: Probe(_CALL_MESSAGES, [_TOOL]),
    WITH_REASONING: Probe(_REASONING_MESSAGES, may_enable_thinking=True),
}
