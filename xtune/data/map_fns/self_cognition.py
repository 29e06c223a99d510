"""Self-cognition: OpenAI messages with placeholders for the model's name and its maker.

Row:     {"messages": [{"role": "user", "content": "Who are you?"},
                       {"role": "assistant", "content": "I am {{NAME}}, made by {{AUTHOR}}."}]}
Result:  user "Who are you?", assistant "I am Xiaotu, made by the xtune team."
"""

from ...registry import map_fn
from ..conversation import Message
from .openai import openai_map_fn


@map_fn('self_cognition')
def self_cognition_map_fn(row: dict, name: str = 'Xiaotu', author: str = 'the xtune team') -> list[Message]:
    """Map one row, with `name` and `author` in place of {{NAME}} and {{AUTHOR}}."""
    messages = openai_map_fn(row)
    for message in messages:
        if isinstance(message['content'], str):
            message['content'] = message['content'].replace('{{NAME}}', name).replace('{{AUTHOR}}', author)
    return messages
