"""Medical: questions and answers in Chinese."""
from xtune.data.map_fns import medical_map_fn

train_dataset = dict(
    path='shibing624/medical',
    map_fn=medical_map_fn,
    name='finetune',
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        '我有家族遗传性的过敏，请问可以可以献血吗？',
        '我爷爷有高血压，请问他可以喝咖啡吗？',
        '我女儿今年3岁了，从昨天晚上九点开始腹泻，到现在已经八个小时了，请问应该怎么办？',
    ],
    system='medical',
    max_new_tokens=128,
)
