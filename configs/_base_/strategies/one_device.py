"""One GPU, or the CPU."""

strategy = dict(
    name='one_device',
    deepspeed=None,
    timeout=1800.0,  # seconds that processes wait for each other in an optimizer step
)
