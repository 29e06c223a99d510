"""What those have in common that train with the Trainer of transformers: rows, arguments, notes of steps.

Nothing here needs xtune, so that a peer may live in an environment of its own.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from .ticks import Ticks


class EnoughError(Exception):
    """The last step is done; what follows it in a peer, such as saving, is not measured."""


def dataset(work: dict) -> Any:
    """Return the rows as a Dataset: `input_ids`, `attention_mask`, `labels`."""
    from datasets import Dataset

    lines = Path(work['rows']).read_text(encoding='utf-8').splitlines()
    rows = [json.loads(line)['tokens'] for line in lines]
    mask = [[1] * len(row) for row in rows]
    return Dataset.from_dict(dict(input_ids=rows, attention_mask=mask, labels=rows))


def on_gpu() -> bool:
    """Tell whether a GPU computes, then in bf16."""
    import torch

    return torch.cuda.is_available()


def has_liger() -> bool:
    """Tell whether the kernels of Liger are there, which need a GPU."""
    return on_gpu() and importlib.util.find_spec('liger_kernel') is not None


def arguments(work: dict) -> dict[str, Any]:
    """Return the training arguments that make the work equal; everything else is as a peer's users get it."""
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


def until_enough(trainer: Any) -> None:
    """Let `trainer` train until all steps are noted."""
    try:
        trainer.train()
    except EnoughError:
        print('done')


def noting(work: dict) -> Any:
    """Return the callback that notes steps; it ends the run by EnoughError."""
    from transformers import TrainerCallback

    ticks = Ticks(Path(work['result']), work['steps'])

    class Noting(TrainerCallback):
        # The log has a step's loss, so that the device has done the step by then.
        def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
            if logs and 'loss' in logs and ticks.add(float(logs['loss'])):
                raise EnoughError

    return Noting()
