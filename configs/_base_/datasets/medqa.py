"""Medication questions: asked by consumers, with answers, an .xlsx of 690 rows (Ben Abacha et al., MEDINFO 2019).

Put the file beside your config or set train_dataset.path.
"""
from xtune.data.map_fns import medqa_map_fn

train_dataset = dict(
    path='MedInfo2019-QA-Medications.xlsx',
    map_fn=medqa_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        'What are the side effects of ibuprofen?',
        'How should I take amoxicillin?',
    ],
    system=None,
    max_new_tokens=128,
)
