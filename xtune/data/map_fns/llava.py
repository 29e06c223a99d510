"""LLaVA and other data sets with images: xtune trains on text, so only rows without an image are mapped."""

from ...messages import Conversation, RowError
from ...registry import map_fn
from .columns import is_empty
from .sharegpt import wizardlm_map_fn

_ADVICE = 'xtune trains text models; leave such rows out'


@map_fn('llava')
def llava_map_fn(row: dict) -> Conversation:
    r"""ShareGPT turns of data sets with images, as in LLaVA and InternVL: only rows without an image.

    Row:
        {"id": "wgByO4Y_0", "conversations": [{"from": "human", "value": "Name a color."},
                                              {"from": "gpt", "value": "Red."}]}
    Result:
        user: "Name a color."
        assistant: "Red."

    Rows with an `image`, `images` or `img_id` (RefCOCO), or with "<image>" in a text, are skipped.
    """
    for name in ('image', 'images', 'img_id'):
        if not is_empty(row.get(name)) and row[name] != []:
            raise RowError('row contains an image', f'{_ADVICE} (column `{name}`)')
    conversation = wizardlm_map_fn(row)
    for number, message in enumerate(conversation.messages, 1):
        if '<image>' in message['content']:
            raise RowError('row contains an image', f'{_ADVICE} ("<image>" in message {number})')
    return conversation
