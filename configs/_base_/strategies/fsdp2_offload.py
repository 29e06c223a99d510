"""FSDP2 with offload: as FSDP2, with the shards in CPU memory."""

strategy = dict(
    name='fsdp2_offload',
    deepspeed=None,
    sequence_parallel_size=1,
    timeout=1800.0,
)
