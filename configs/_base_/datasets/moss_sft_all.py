"""MOSS: conversations without plugins, 1.1M rows, and with plugins. Put the files of moss-003-sft-data into ./data."""
from xtune.data.map_fns import moss_sft_map_fn

train_dataset = [
    dict(
        path='./data/moss-003-sft-no-tools.jsonl',
        map_fn=moss_sft_map_fn,
        map_args=dict(bot_name='MOSS'),  # the name that the model learns
    ),
    dict(
        path=(
            './data/conversations_with_tools_with_inner_instruction_no_text2image_train_all_random'
            '_meta0.5_0.1_0.01_moss_0709.jsonl'
        ),
        map_fn=moss_sft_map_fn,
        map_args=dict(bot_name='MOSS'),  # the name that the model learns
    ),
]

max_length = 2048

pack = False

chat_samples = dict(
    every_steps=500,
    prompts=[
        '一个球体的表面积是384平方厘米，求它的体积。',
        '今有鸡兔同笼，上有二十头，下有六十二足， 问鸡兔各几何？',
        '介绍一下比尔盖茨',
    ],
    system='moss_sft',
    max_new_tokens=128,
)
