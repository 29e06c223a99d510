"""Option names of XTuner v0.1, mmengine, transformers and TRL, and the options of xtune that replace them.

The error about an unknown option names the replacement, and docs/en/config.md shows the tables of XTuner v0.1.
"""

_STEPS = 'schedule.batch_size and schedule.gradient_accumulation_steps'
_VALIDATION = 'val_dataset and validation.every_steps'

# Top-level name in a config of XTuner v0.1 -> its replacement.
XTUNER_NAMES: dict[str, str] = {
    'visualizer': 'runner.visualizer',
    'vis_backends': 'runner.visualizer',
    'default_hooks': 'checkpoint, log and validation',
    'custom_hooks': 'runner.custom_hooks',
    'param_scheduler': 'schedule.lr_schedule, schedule.warmup_ratio and schedule.min_lr_ratio',
    'optim_wrapper': 'optimizer, schedule.gradient_accumulation_steps and schedule.max_grad_norm',
    'train_dataloader': f'train_dataset, data.num_workers, {_STEPS}',
    'train_cfg': 'schedule.max_epochs or schedule.max_steps',
    **dict.fromkeys(('val_dataloader', 'val_evaluator', 'val_cfg'), _VALIDATION),
    **dict.fromkeys(('test_dataloader', 'test_evaluator', 'test_cfg'), 'val_dataset (there is no test phase)'),
    'model': 'base_model, llm, quantization and lora',
    'env_cfg': 'runner.env_cfg',
    'log_processor': 'log.every_steps',
    'log_level': 'runner.log_level',
    'launcher': '--launcher of xtune train',
    'randomness': 'seed',
    'deterministic': 'runner.randomness.deterministic',
    'resume': '--resume of xtune train',
    'default_scope': 'not needed: classes are imported or named with their module',
    'compile': 'speed.compile',
    'accumulative_counts': 'schedule.gradient_accumulation_steps',
    'batch_size': 'schedule.batch_size',
    'dataloader_num_workers': 'data.num_workers',
    'pack_to_max_length': 'pack',
    'shuffle_before_pack': 'not needed: samples are shuffled before they are packed',
    'use_varlen_attn': 'speed.varlen_attention',
    'sequence_parallel_size': 'strategy.sequence_parallel_size',
    'sampler': 'strategy.sequence_parallel_size',
    'evaluation_inputs': 'chat_samples.prompts',
    'evaluation_freq': 'chat_samples.every_steps',
    'evaluation_images': 'not supported: xtune trains on text only',
    'SYSTEM': 'train_dataset.system and chat_samples.system',
    'system': 'train_dataset.system and chat_samples.system',
    'prompt_template': 'chat_template',
    'max_epochs': 'schedule.max_epochs',
    'max_steps': 'schedule.max_steps',
    'lr': 'optimizer.lr',
    'betas': 'optimizer.betas',
    'weight_decay': 'optimizer.weight_decay',
    'optim_type': 'optimizer.type',
    'warmup_ratio': 'schedule.warmup_ratio',
    'max_norm': 'schedule.max_grad_norm',
    'save_steps': 'checkpoint.every_steps',
    'save_total_limit': 'checkpoint.keep',
    'pretrained_model_name_or_path': 'base_model',
    'dataset': 'train_dataset',
    'data_path': 'train_dataset.path',
    'data_files': 'train_dataset.path',
    'max_dataset_length': 'train_dataset.limit',
    'dataset_map_fn': 'train_dataset.map_fn',
    'template_map_fn': 'chat_template',
}
# Name in transformers, TRL and other libraries -> its replacement.
_OTHER_NAMES: dict[str, str] = {
    'resume_from_checkpoint': '--resume of xtune train',
    'model_name_or_path': 'base_model',
    'output_dir': 'work_dir',
    'learning_rate': 'optimizer.lr',
    'lr_scheduler_type': 'schedule.lr_schedule',
    'warmup_steps': 'schedule.warmup_ratio',
    'num_train_epochs': 'schedule.max_epochs',
    'num_epochs': 'schedule.max_epochs',
    'per_device_train_batch_size': 'schedule.batch_size',
    'gradient_accumulation_steps': 'schedule.gradient_accumulation_steps',
    'gradient_checkpointing': 'activation_checkpointing',
    'max_grad_norm': 'schedule.max_grad_norm',
    **dict.fromkeys(('bf16', 'fp16', 'dtype', 'torch_dtype'), 'precision'),
    **dict.fromkeys(('load_in_4bit', 'load_in_8bit', 'quantization_config'), 'quantization'),
    **dict.fromkeys(('peft_config', 'adapter', 'lora_r', 'lora_alpha', 'target_modules'), 'lora'),
    'logging_steps': 'log.every_steps',
    'report_to': 'runner.visualizer',
    'eval_steps': 'validation.every_steps',
    'eval_dataset': 'val_dataset',
    'packing': 'pack',
    **dict.fromkeys(('max_seq_length', 'max_seq_len', 'sequence_len', 'cutoff_len'), 'max_length'),
    'attn_implementation': 'llm.attn_implementation',
    'deepspeed': 'strategy, or --deepspeed of xtune train',
    'fsdp': 'strategy, or --strategy fsdp2 of xtune train',
}

SECTION_NAMES = XTUNER_NAMES | _OTHER_NAMES

# Key of a data set in XTuner v0.1 -> its replacement.
DATASET_KEYS: dict[str, str] = {
    'type': 'not needed: the path tells how a data set is read',
    'dataset': 'path',
    'data_files': 'path',
    'dataset_map_fn': 'map_fn',
    'template_map_fn': 'the section chat_template',
    'max_dataset_length': 'limit',
    'max_length': 'the section max_length',
    'pack_to_max_length': 'the section pack',
    'tokenizer': 'the section tokenizer',
    'use_varlen_attn': 'speed.varlen_attention',
    'shuffle_before_pack': 'not needed: samples are shuffled before they are packed',
    'remove_unused_columns': 'not needed: the map function takes the columns it needs',
    'map_num_proc': 'data.num_proc',
    'dataset_name': 'name',
    'sheet_name': 'sheet',
}


def instead_of(name: str, table: dict[str, str]) -> str:
    """Return `'; use X'` for a name of `table`, or an empty string."""
    if name not in table:
        return ''
    return f'; {table[name]}' if table[name].startswith('not ') else f'; use {table[name]}'
