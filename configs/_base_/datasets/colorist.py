"""Colorist: a description -> a colour code, 34k rows."""
from xtune.data.map_fns import colors_map_fn

train_dataset = dict(
    path='burkelibbey/colors',
    map_fn=colors_map_fn,
)

# Tokens per training sequence.
max_length = 2048

# Short samples share a sequence: 'fit' (or True), 'exact', 'stream'; False: one sample a sequence.
pack = True

# Prompts answered every `every_steps` optimizer steps, to watch the model learn.
chat_samples = dict(
    every_steps=200,
    prompts=[
        '请给我一个像天空一样清澈透明的蓝色。',
        'Please give me a clear blue like the sky.',
    ],
    system='colorist',
    max_new_tokens=128,
)
