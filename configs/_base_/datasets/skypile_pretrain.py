"""SkyPile-150B: Chinese web pages for continued pretraining, 600 GB; with data.streaming, read while training."""
from xtune.data.map_fns import text_map_fn

train_dataset = dict(
    path='Skywork/SkyPile-150B',
    map_fn=text_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        '上海的景点有',
    ],
    system=None,
    max_new_tokens=100,
)
