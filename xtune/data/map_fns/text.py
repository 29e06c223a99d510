"""Plain text for pretraining."""

from ...registry import map_fn
from ..conversation import Message, column


@map_fn('pretrain')
@map_fn('text')
def text_map_fn(row: dict) -> list[Message]:
    r"""Plain text for pretraining: the whole text is trained on; it needs template='plain'.

    Row:
        {"text": "Anarchism is a political philosophy.\n"}
    Result:
        text: "Anarchism is a political philosophy."
    """
    return [{'role': 'text', 'content': column(row, 'text').strip()}]


pretrain_map_fn = text_map_fn
