"""Own conversations: any format that `xtune list-dataset-format` shows, detected by its columns.

Set train_dataset.path to your file or folder.
"""

train_dataset = dict(
    path='./data/sft.jsonl',
    map_fn='auto',
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
