"""One GPU, or the CPU."""

strategy = dict(
    name='one_device',
    deepspeed=None,
)
