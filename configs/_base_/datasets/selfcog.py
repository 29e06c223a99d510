"""Self-cognition: the bundled 84 conversations that teach a model its name and maker."""
from xtune.data.map_fns import self_cognition_map_fn

train_dataset = dict(
    path='self_cognition',
    map_fn=self_cognition_map_fn,
    map_args=dict(
        name='Xiaotu',
        author='the xtune team',
    ),
)

max_length = 256

pack = True

chat_samples = dict(
    every_steps=20,
    prompts=[
        'Who are you?',
    ],
    system=None,
    max_new_tokens=40,
)
