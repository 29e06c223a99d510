"""WizardLM Evol-Instruct V2: instructions of increasing difficulty, 143k conversations."""
from xtune.data.map_fns import wizardlm_map_fn

train_dataset = dict(
    path='WizardLM/WizardLM_evol_instruct_V2_196k',
    map_fn=wizardlm_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=200,
    prompts=[
        '请给我介绍五个上海的景点',
        'Please tell me five scenic spots in Shanghai',
    ],
    system=None,
    max_new_tokens=128,
)
