"""Own text for continued pretraining: rows with a `text` column, or a .txt with one document per line.

Set train_dataset.path to your file or folder.
"""
from xtune.data.map_fns import text_map_fn

train_dataset = dict(
    path='./data/pretrain.jsonl',
    map_fn=text_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        '上海是',
        'Shanghai is',
    ],
    system=None,
    max_new_tokens=100,
)
