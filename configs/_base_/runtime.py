"""What every preset shares: sequence length, schedule, checkpoints, logging."""

val_dataset = None

# Tokens per training sequence. Short samples are packed up to this length.
max_length = 2048

# 'fit' (or True), 'exact', 'stream', or False: one sample a sequence.
pack = True

# A sample of more than max_length tokens: 'truncate', 'split', 'drop' or 'error'.
overlong = 'truncate'

# 'all_replies' or 'last_reply'.
train_on = 'all_replies'

# Special-token text inside data, such as <|im_end|>: 'text' stays text, 'parse' becomes the token, 'error' is refused.
control_tokens = 'text'

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

# Recompute every layer's activations in the backward pass ('all') or none.
checkpointing = 'all'

schedule = dict(
    max_epochs=1,
    max_steps=None,
    batch_size=1,  # sequences per device
    accumulate=16,  # optimizer step = batch_size * accumulate * devices sequences
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

# Prompts answered every `every_steps` optimizer steps, to watch the model learn.
chat_samples = dict(
    every_steps=500,
    prompts=['请给我介绍五个上海的景点', 'Please tell me five scenic spots in Shanghai'],
    system=None,
    max_new_tokens=128,
)

seed = 42
