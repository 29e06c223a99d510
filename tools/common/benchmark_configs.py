"""Configs for benchmark runs: training only, without checkpoints, plots and chat samples."""

from pathlib import Path
from typing import Any

# Optimizer steps at the start of a run that are excluded from its speed.
WARMUP_STEPS = 5


def benchmark_options(model: Path, data: Path, seq_len: int, batch_size: int, max_steps: int) -> dict[str, Any]:
    """Return the options of a run on unpacked sequences of `seq_len` tokens.

    The run writes metrics for each of its `max_steps` optimizer steps, and no checkpoint. `batch_size` is the number of
    sequences per micro-batch.
    """
    return {
        'base_model': str(model),
        'train_dataset': dict(path=str(data), map_fn='tokenized'),
        'max_length': seq_len,
        'pack': False,
        'schedule.batch_size': batch_size,
        'schedule.max_steps': max_steps,
        'schedule.lr_schedule': 'constant',
        'log': dict(every_steps=1, tensorboard=False, plot=False),
        'checkpoint': dict(every_steps=None, every_epochs=None),
        'chat_samples': None,
        'custom_imports': ['common.stop_hook'],
        'runner': dict(custom_hooks=[dict(type='xtune.StopWithoutCheckpoint', max_steps=max_steps)]),
    }


def config_text(method: str, options: dict[str, Any]) -> str:
    """Return the text of a config of `method` with `options`; an adapter has rank 16 and no dropout."""
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    if method != 'full':
        options = options | {'lora.lora_dropout': 0.0, 'lora.r': 16}  # dropout would make losses incomparable
    return flatten(find(f'smollm2_135m_{method}_selfcog_e2'), options)
