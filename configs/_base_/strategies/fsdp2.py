"""FSDP2: weights, gradients and optimizer state are sliced over the devices; a quantised (NF4) base too."""

strategy = dict(
    name='fsdp2',
    deepspeed=None,
    timeout=1800.0,  # seconds that processes wait for each other in an optimizer step
)
