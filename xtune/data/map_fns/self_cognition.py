"""Self-cognition: OpenAI messages with placeholders for the names of the model and its author."""

from ...messages import Conversation
from ...registry import map_fn
from .openai import openai_map_fn


@map_fn('self_cognition')
def self_cognition_map_fn(row: dict, name: str = 'Xiaotu', author: str = 'the xtune team') -> Conversation:
    r"""OpenAI messages with `name` and `author` in place of {{NAME}} and {{AUTHOR}}.

    Row:
        {"messages": [{"role": "user", "content": "Who are you?"},
                      {"role": "assistant", "content": "I am {{NAME}}, made by {{AUTHOR}}."}]}
    Result:
        user: "Who are you?"
        assistant: "I am Xiaotu, made by the xtune team."
    """
    conversation = openai_map_fn(row)
    messages = [
        {**message, 'content': message['content'].replace('{{NAME}}', name).replace('{{AUTHOR}}', author)}
        for message in conversation.messages
    ]
    return Conversation(messages, conversation.tools)
