"""DeepSpeed ZeRO-3: optimizer state, gradients and weights are sharded."""

strategy = dict(
    name='zero3',
    deepspeed=dict(
        gradient_accumulation_steps='auto',
        train_micro_batch_size_per_gpu='auto',
        gradient_clipping='auto',
        zero_allow_untested_optimizer=True,
        zero_force_ds_cpu_optimizer=False,
        zero_optimization=dict(
            stage=3,
            overlap_comm=True,
            stage3_gather_16bit_weights_on_model_save=True,
        ),
        fp16=dict(enabled='auto', initial_scale_power=16),
        bf16=dict(enabled='auto'),
    ),
    sequence_parallel_size=1,
    timeout=1800.0,
)
