"""DDP: the model is replicated, the batch is split."""

strategy = dict(
    name='ddp',
    deepspeed=None,
    sequence_parallel_size=1,
    timeout=1800.0,
)
