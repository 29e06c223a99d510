"""OpenAssistant oasst1: conversations, the Guanaco subset of 9.8k rows."""
from xtune.data.map_fns import oasst1_map_fn

train_dataset = dict(
    path='timdettmers/openassistant-guanaco',
    map_fn=oasst1_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        '请给我介绍五个上海的景点',
        'Please tell me five scenic spots in Shanghai',
    ],
    system=None,
    max_new_tokens=128,
)
