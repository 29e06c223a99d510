"""Colorist: a description -> a color code, 34k rows."""
from xtune.data.map_fns import colors_map_fn

train_dataset = dict(
    path='burkelibbey/colors',
    map_fn=colors_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=200,
    prompts=[
        '请给我一个像天空一样清澈透明的蓝色。',
        'Please give me a clear blue like the sky.',
    ],
    system='colorist',
    max_new_tokens=128,
)
