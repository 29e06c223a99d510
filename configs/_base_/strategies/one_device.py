"""One GPU, or the CPU."""

strategy = dict(
    name='one_device',
    deepspeed=None,
    sequence_parallel_size=1,  # neighbouring devices that split each row
    timeout=1800.0,  # seconds that processes wait for each other in an optimizer step
)
