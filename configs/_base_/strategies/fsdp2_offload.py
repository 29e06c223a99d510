"""FSDP2 with offload: as FSDP2, with the slices in host memory."""

strategy = dict(
    name='fsdp2_offload',
    deepspeed=None,
    sequence_parallel_size=1,
    timeout=1800.0,
)
