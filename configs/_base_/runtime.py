"""Settings of every preset: precision, schedule, checkpoints, logging.

A warm-up of 3 % and a checkpoint every 500 steps, of which two are kept, are those of XTuner v0.1.23; v0.1.9 had no
warm-up and one checkpoint per epoch. Precision 'auto' replaces float16 with loss scaling.
"""

load_from = None

val_dataset = None

overlong = 'truncate'

train_on = 'all_replies'

control_tokens = 'auto'

data = dict(
    num_proc=None,
    max_bad_rows=0.05,
    num_workers=0,
    longest_first=False,
    streaming=False,
    window=10000,
)

precision = 'auto'

activation_checkpointing = 'auto'

schedule = dict(
    max_epochs=1,
    max_steps=None,
    batch_size=1,
    gradient_accumulation_steps=16,
    lr_schedule='cosine',
    warmup_ratio=0.03,
    min_lr_ratio=0.0,
    max_grad_norm=1.0,
)

checkpoint = dict(
    every_steps=500,
    every_epochs=1,
    keep=2,
    export_adapter=True,
)

log = dict(
    every_steps=10,
    tensorboard=True,
    plot=True,
)

validation = dict(
    every_steps=None,
)

seed = 42
