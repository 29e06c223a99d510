"""Each device holds the whole model and takes its share of the batch."""

strategy = dict(
    name='ddp',
    deepspeed=None,
    sequence_parallel_size=1,
    timeout=1800.0,
)
