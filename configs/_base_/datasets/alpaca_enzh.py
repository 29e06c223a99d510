"""Alpaca in English and Chinese: 52k rows each."""
from xtune.data.map_fns import alpaca_map_fn, alpaca_zh_map_fn

train_dataset = [
    dict(
        path='tatsu-lab/alpaca',
        map_fn=alpaca_map_fn,
    ),
    dict(
        path='silk-road/alpaca-data-gpt4-chinese',
        map_fn=alpaca_zh_map_fn,
    ),
]

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        '请给我介绍五个上海的景点',
        'Please tell me five scenic spots in Shanghai',
    ],
    system='alpaca',
    max_new_tokens=128,
)
