"""Tiny Codes: short programs in many languages, 1.6M rows. Request access on the hub."""
from xtune.data.map_fns import tiny_codes_map_fn

train_dataset = dict(
    path='nampdn-ai/tiny-codes',
    map_fn=tiny_codes_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        '写一个Python函数，将十六进制颜色代码（如#0066ee）转换为对应的红、绿、蓝（RGB）三个颜色分量值，并以元组的形式返回。',
        (
            'Write a Python function that takes a hexadecimal color code (e.g., #0066ee) as input and '
            'converts it into the corresponding red, green, and blue (RGB) color component values.'
        ),
    ],
    system='coder',
    max_new_tokens=128,
)
