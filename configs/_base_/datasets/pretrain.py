"""Plain text for continued pretraining: a .txt with one document per line, or rows with a `text` column.

Set train_dataset.path to your file.
"""
from xtune.data.map_fns import text_map_fn

train_dataset = dict(
    path='pretrain.txt',
    map_fn=text_map_fn,
)

max_length = 1024

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        'Shanghai is',
    ],
    system=None,
    max_new_tokens=128,
)
