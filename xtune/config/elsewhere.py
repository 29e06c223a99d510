"""Names that configs of XTuner v0.1, of mmengine and of the Trainer of transformers have, and the options that do the
same here."""

_STEPS = 'schedule.batch_size and schedule.gradient_accumulation_steps'
_VALIDATION = 'val_dataset and validation.every_steps'
_HOOKS = 'runner.custom_hooks'
_CHECKPOINT = 'checkpoint.every_steps and checkpoint.every_epochs'
_SCHEDULE = 'schedule.lr_schedule, schedule.warmup_ratio and schedule.min_lr_ratio'

# Name of a section elsewhere -> the option here.
SECTIONS_ELSEWHERE: dict[str, str] = {
    # XTuner and mmengine
    'visualizer': 'runner.visualizer',
    'vis_backends': 'runner.visualizer',
    'default_hooks': 'checkpoint, log and validation',
    'custom_hooks': _HOOKS,
    'param_scheduler': _SCHEDULE,
    'optim_wrapper': 'optimizer, schedule.gradient_accumulation_steps and schedule.max_grad_norm',
    'train_dataloader': f'train_dataset, data.num_workers, {_STEPS}',
    'train_cfg': 'schedule.max_epochs or schedule.max_steps',
    **dict.fromkeys(('val_dataloader', 'val_evaluator', 'val_cfg'), _VALIDATION),
    **dict.fromkeys(('test_dataloader', 'test_evaluator', 'test_cfg'), 'val_dataset, as a run has no test phase'),
    'model': 'base_model, llm, quantization and lora',
    'env_cfg': 'runner.env_cfg',
    'log_processor': 'log.every_steps',
    'log_level': 'runner.log_level',
    'launcher': '--launcher of xtune train',
    'randomness': 'seed',
    'deterministic': 'runner.randomness.deterministic',
    'resume': '--resume of xtune train',
    'resume_from_checkpoint': '--resume of xtune train',
    'default_scope': 'nothing, as classes are imported or named with their module',
    'compile': 'speed.compile',
    'accumulative_counts': 'schedule.gradient_accumulation_steps',
    'batch_size': 'schedule.batch_size',
    'dataloader_num_workers': 'data.num_workers',
    'pack_to_max_length': 'pack',
    'shuffle_before_pack': 'nothing, as samples are shuffled before they are packed',
    'use_varlen_attn': 'speed.varlen_attention',
    'sequence_parallel_size': 'strategy.sequence_parallel_size',
    'sampler': 'strategy.sequence_parallel_size',
    'evaluation_inputs': 'chat_samples.prompts',
    'evaluation_freq': 'chat_samples.every_steps',
    'evaluation_images': 'nothing, as there are no images',
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
    # transformers, TRL and others
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

# Key of a data set elsewhere -> the option here.
SOURCES_ELSEWHERE: dict[str, str] = {
    'type': 'nothing, as the path tells how a data set is read',
    'dataset': 'path',
    'data_files': 'path',
    'dataset_map_fn': 'map_fn',
    'template_map_fn': 'the section chat_template',
    'max_dataset_length': 'limit',
    'max_length': 'the section max_length',
    'pack_to_max_length': 'the section pack',
    'tokenizer': 'the section tokenizer',
    'use_varlen_attn': 'speed.varlen_attention',
    'shuffle_before_pack': 'nothing, as samples are shuffled before they are packed',
    'remove_unused_columns': 'nothing, as the map function takes the columns it needs',
    'map_num_proc': 'data.num_proc',
    'dataset_name': 'name',
    'sheet_name': 'sheet',
}


def instead_of(name: str, table: dict[str, str]) -> str:
    """Return `'; here it is X'` for a name of `table`, or an empty string."""
    return f'; here it is {table[name]}' if name in table else ''
