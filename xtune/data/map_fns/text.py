"""Plain text for pretraining: the whole text is trained on, and ends in the end-of-text token.

Row:     {"text": "Anarchism is a political philosophy ..."}
Result:  text "Anarchism is a political philosophy ..."
"""

from ...registry import map_fn
from ..conversation import Message, column


@map_fn('text')
def text_map_fn(row: dict) -> list[Message]:
    """Map one document to a message of role `text`; use it with template='plain'."""
    return [{'role': 'text', 'content': column(row, 'text').strip()}]
