"""One GPU, or the CPU."""

strategy = dict(
    name='one_device',
    deepspeed=None,
    sequence_parallel_size=1,  # neighbouring devices that split each row
)
