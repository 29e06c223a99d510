"""The options that are changed so that a preset runs within a second."""

# All changed options, except for base_model and the paths of train_dataset.
OVERRIDES = {
    'max_length': 256,
    'schedule.batch_size': 2,
    'schedule.gradient_accumulation_steps': 1,
    'schedule.max_steps': 2,
    'data.num_proc': 1,
    'data.num_workers': 0,
    'chat_samples.max_new_tokens': 2,
    'log.tensorboard': False,
    'log.plot': False,
}
# Map functions with longer samples, and their max_length.
LONG_SAMPLES = {'moss_sft': 1024, 'msagent_react': 1024}
