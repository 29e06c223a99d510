"""Conversations in the formats of the Gemini and Bedrock APIs."""

from typing import Any

from ...messages import Conversation, Message
from ...registry import map_fn
from .columns import is_empty, list_column
from .openai import to_messages
from .parts import content_text
from .tools import declared_tools
from .turns import to_conversation


@map_fn('gemini')
def gemini_map_fn(row: dict) -> Conversation:
    r"""Contents with parts, as in Gemini's tuning data.

    Row:
        {"systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
         "contents": [{"role": "user", "parts": [{"text": "How deep is well A?"}]},
                      {"role": "model", "parts": [{"functionCall": {"name": "depth", "args": {"well": "A"}}}]},
                      {"role": "user", "parts": [{"functionResponse": {"name": "depth", "response": {"m": 7}}}]},
                      {"role": "model", "parts": [{"text": "7 metres."}]}]}
    Result:
        system: "Be brief."
        user: "How deep is well A?"
        assistant: "" {"tool_calls": [{"type": "function", "function": {"name": "depth", "arguments": {"well": "A"}}}]}
        tool: "{\"m\": 7}" {"name": "depth"}
        assistant: "7 metres."

    `tools` with functionDeclarations are used. A part whose `thought` is true is reasoning.
    """
    return _conversation(row, list_column(row, 'contents'), ('systemInstruction', 'system_instruction'))


@map_fn('bedrock')
def bedrock_map_fn(row: dict) -> Conversation:
    r"""Messages with content blocks, as in Amazon Bedrock's tuning data.

    Row:
        {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Be brief."}],
         "messages": [{"role": "user", "content": [{"text": "Where is pier 0?"}]},
                      {"role": "assistant", "content": [{"text": "In the harbour."}]}]}
    Result:
        system: "Be brief."
        user: "Where is pier 0?"
        assistant: "In the harbour."

    `toolUse` and `toolResult` blocks, and the tools of `toolConfig`, are used.
    """
    row.get('schemaVersion')  # read, so that it is not reported as unused
    return _conversation(row, list_column(row, 'messages'), ('system',))


def _conversation(row: dict, entries: list[Any], systems: tuple[str, ...]) -> Conversation:
    name = next((name for name in systems if name in row and not is_empty(row[name])), None)
    system = content_text(row[name], f'column `{name}`') if name else ''
    messages: list[Message] = [{'role': 'system', 'content': system}] if system else []
    for number, entry in enumerate(entries, 1):
        messages += to_messages(entry, f'message {number}')
    return to_conversation(messages, declared_tools(row))
