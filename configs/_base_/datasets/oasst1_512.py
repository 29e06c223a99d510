"""OpenAssistant oasst1 at 512 tokens: one conversation to a sequence, for little memory."""
from xtune.data.map_fns import oasst1_map_fn

train_dataset = dict(
    path='timdettmers/openassistant-guanaco',
    map_fn=oasst1_map_fn,
)

# Tokens per training sequence.
max_length = 512

# Short samples share a sequence: 'fit' (or True), 'exact', 'stream'; False: one sample a sequence.
pack = False

# Prompts answered every `every_steps` optimizer steps, to watch the model learn.
chat_samples = dict(
    every_steps=500,
    prompts=[
        '请给我介绍五个上海的景点',
        'Please tell me five scenic spots in Shanghai',
    ],
    system=None,
    max_new_tokens=128,
)
