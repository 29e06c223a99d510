"""DeepSpeed ZeRO-2: optimizer state and gradients are sharded."""

strategy = dict(
    name='zero2',
    deepspeed=dict(
        gradient_accumulation_steps='auto',
        train_micro_batch_size_per_gpu='auto',
        gradient_clipping='auto',
        zero_allow_untested_optimizer=True,
        zero_force_ds_cpu_optimizer=False,
        zero_optimization=dict(
            stage=2,
            overlap_comm=True,
        ),
        fp16=dict(enabled='auto', initial_scale_power=16),
        bf16=dict(enabled='auto'),
    ),
    sequence_parallel_size=1,
    timeout=1800.0,
)
