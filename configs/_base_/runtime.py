"""What every preset shares: precision, schedule, checkpoints, logging.

Warm-up of 3 % and checkpoints every 500 steps, of which two stay, are those of the predecessor's v0.1.23; v0.1.9 had no
warm-up and kept one checkpoint an epoch. Precision 'auto' stands in for float16 with a scaled loss.
"""

# A .pth or a folder with an adapter whose weights this run begins with; None: a new adapter, or the base's weights.
load_from = None

val_dataset = None

# A sample of more than max_length tokens: 'truncate', 'split', 'drop' or 'error'.
overlong = 'truncate'

# 'all_replies' or 'last_reply'.
train_on = 'all_replies'

# Special-token text inside data, such as <|im_end|>: 'text' stays text, 'parse' becomes the token, 'error' refuses
# the row; 'auto' is 'text', but refuses data that a chat template seems to have written.
control_tokens = 'auto'

data = dict(
    num_proc=None,  # processes that tokenise; None: one per core
    max_bad_rows=0.05,  # share of unusable rows above which the run stops
    num_workers=0,
    longest_first=False,  # the first step trains on the longest sequences
    streaming=False,  # read rows while training; needs schedule.max_steps
    window=10000,  # rows shuffled together when streaming
)

# 'auto' computes in bf16 where the GPU has it, else in fp32.
precision = 'auto'

# Layers that recompute their activations in the backward pass: what memory demands ('auto'), 'all', 'none', a number,
# or 'offload' (all, with what lies between them in host memory).
activation_checkpointing = 'auto'

schedule = dict(
    max_epochs=1,
    max_steps=None,
    batch_size=1,  # sequences per device
    gradient_accumulation_steps=16,  # optimizer step = batch_size * gradient_accumulation_steps * devices sequences
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
    every_steps=None,  # None: at the end of every epoch
)

seed = 42
