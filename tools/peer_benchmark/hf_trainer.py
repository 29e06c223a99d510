"""Shared by the peers that use the Trainer of transformers: data set, training arguments, step timing.

This module does not import xtune, because a peer may run in an environment without it.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from .step_timer import StepTimer


class LastStepDone(Exception):  # noqa: N818
    """Stops a run after the last step; saving and other work after it is not measured."""


def dataset(work: dict) -> Any:
    """Return the data as a Dataset with `input_ids`, `attention_mask` and `labels`."""
    from datasets import Dataset

    lines = Path(work['rows']).read_text(encoding='utf-8').splitlines()
    rows = [json.loads(line)['tokens'] for line in lines]
    mask = [[1] * len(row) for row in rows]
    return Dataset.from_dict(dict(input_ids=rows, attention_mask=mask, labels=rows))


def on_gpu() -> bool:
    """Return whether the run uses a GPU, and with it bf16."""
    import torch

    return torch.cuda.is_available()


def has_liger() -> bool:
    """Return whether Liger kernels can be used: they need a GPU."""
    return on_gpu() and importlib.util.find_spec('liger_kernel') is not None


def training_arguments(work: dict) -> dict[str, Any]:
    """Return the training arguments that define the work; all others keep the defaults of the peer."""
    return dict(
        output_dir=work['folder'],
        per_device_train_batch_size=work['batch'],
        gradient_accumulation_steps=1,
        max_steps=work['steps'],
        learning_rate=1e-4,
        lr_scheduler_type='constant',
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim='adamw_torch_fused',
        bf16=on_gpu(),
        use_cpu=not on_gpu(),
        logging_steps=1,
        disable_tqdm=True,
        save_strategy='no',
        report_to='none',
        seed=0,
    )


def train_all_steps(trainer: Any) -> None:
    """Train until the last step is recorded."""
    try:
        trainer.train()
    except LastStepDone:
        print('done')


def timing_callback(work: dict) -> Any:
    """Return a callback that records steps, and raises LastStepDone after the last one."""
    from transformers import TrainerCallback

    timer = StepTimer(Path(work['result']), work['steps'])

    class TimingCallback(TrainerCallback):
        # The log contains the loss as a number, so the device has finished the step.
        def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
            if logs and 'loss' in logs and timer.add(float(logs['loss'])):
                raise LastStepDone

    return TimingCallback()
