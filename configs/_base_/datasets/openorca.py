"""OpenOrca: FLAN tasks answered by GPT-3.5 and GPT-4, 4.2M rows, each with its own system message."""
from xtune.data.map_fns import openorca_map_fn

train_dataset = dict(
    path='Open-Orca/OpenOrca',
    map_fn=openorca_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=5000,
    prompts=[
        '请给我介绍五个上海的景点',
        'Please tell me five scenic spots in Shanghai',
    ],
    system=None,
    max_new_tokens=128,
)
