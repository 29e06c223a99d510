"""Lawyer: questions on Chinese law (LAW-GPT), 52k rows with answers and 92k with articles of law.

Put the two files into ./data, or set train_dataset.0.path and train_dataset.1.path.
"""
from xtune.data.map_fns import crime_kg_assitant_map_fn, law_reference_map_fn

train_dataset = [
    dict(
        path='./data/CrimeKgAssitant清洗后_52k.json',
        map_fn=crime_kg_assitant_map_fn,
    ),
    dict(
        path='./data/训练数据_带法律依据_92k.json',
        map_fn=law_reference_map_fn,
    ),
]

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        '请问离婚需要准备什么材料？',
        '销售鳄鱼皮包违法吗？',
    ],
    system='lawyer',
    max_new_tokens=128,
)
