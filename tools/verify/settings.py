"""What is changed in a preset so that it runs in a second."""

# Every key that is changed, besides base_model and the paths of train_dataset.
CHANGED = {
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
# Map functions whose samples are longer than that.
LONGER = {'moss_sft': 1024, 'msagent_react': 1024}
