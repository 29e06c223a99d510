"""Stack Exchange: questions with answers, 20,000 rows.

XTuner v0.1 drew them at random from the folder data/finetune; `limit` uses the first ones.
"""
from xtune.data.map_fns import stack_exchange_map_fn

train_dataset = dict(
    path='ArmelR/stack-exchange-instruction',
    map_fn=stack_exchange_map_fn,
    limit=20000,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=200,
    prompts=[
        (
            'from typing import List def has_close_elements(numbers: List[float], threshold: float) -> '
            'bool: """ Check if in given list of numbers, are any two numbers closer to each other than '
            'given threshold. >>> has_close_elements([1.0, 2.0, 3.0], 0.5) False >>> '
            'has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3) True """'
        ),
    ],
    system=None,
    max_new_tokens=128,
)
