"""Plain text for pretraining."""

from ...messages import Message
from ...messages import column as text_of
from ...registry import map_fn


@map_fn('pretrain')
@map_fn('text')
def text_map_fn(row: dict, column: str = 'text') -> list[Message]:
    r"""Plain text for pretraining: all of it is trained, with the template `plain`.

    Row:
        {"text": "Anarchism is a political philosophy.\n"}
    Result:
        text: "Anarchism is a political philosophy."

    `column` is the name of the column.
    """
    return [{'role': 'text', 'content': text_of(row, column).strip()}]


pretrain_map_fn = text_map_fn
