"""Configs of runs that are measured: nothing but training is done in them."""

from pathlib import Path
from typing import Any

# Steps at the start that the speed does not count.
WARM_UP = 5


def shared_options(model: Path, rows: Path, length: int, batch: int, steps: int) -> dict[str, Any]:
    """Return the options of a run of `steps` on whole rows of `length` that writes its figures and no checkpoint."""
    return {
        'base_model': str(model),
        'train_dataset': dict(path=str(rows), map_fn='tokenized'),
        'max_length': length,
        'pack': False,
        'schedule.batch_size': batch,
        'schedule.max_steps': steps,
        'schedule.lr_schedule': 'constant',
        'log': dict(every_steps=1, tensorboard=False, plot=False),
        'checkpoint': dict(every_steps=None, every_epochs=None),
        'chat_samples': None,
        'custom_imports': ['common.stop'],
        'runner': dict(custom_hooks=[dict(type='xtune.StopUnsaved', steps=steps)]),
    }


def flat(method: str, options: dict[str, Any]) -> str:
    """Return a config of `method` with `options`; the adapter, if any, has rank 16 and no dropout."""
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    if method != 'full':
        options = options | {'lora.lora_dropout': 0.0, 'lora.r': 16}  # dropout differs between runs
    return flatten(find(f'smollm2_135m_{method}_selfcog_e2'), options)
