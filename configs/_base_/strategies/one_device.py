"""One GPU, or the CPU."""

strategy = dict(
    name='one_device',
    deepspeed=None,
    sequence_parallel_size=1,
    timeout=1800.0,
)
