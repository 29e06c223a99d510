"""SkyPile-150B: Chinese web pages to go on pretraining with, 600 GB. data.streaming reads them while training."""
from xtune.data.map_fns import text_map_fn

train_dataset = dict(
    path='Skywork/SkyPile-150B',
    map_fn=text_map_fn,
)

# Tokens per training sequence.
max_length = 2048

# Short samples share a sequence: 'fit' (or True), 'exact', 'stream'; False: one sample a sequence.
pack = True

# Prompts answered every `every_steps` optimizer steps, to watch the model learn.
chat_samples = dict(
    every_steps=500,
    prompts=[
        '上海的景点有',
    ],
    system=None,
    max_new_tokens=100,
)
