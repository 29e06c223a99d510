"""FSDP2: weights, gradients and optimizer state are sharded, a quantized (NF4) base too."""

strategy = dict(
    name='fsdp2',
    deepspeed=None,
    sequence_parallel_size=1,
    timeout=1800.0,
)
