"""LLaMA-Factory's training, on rows that are tokenized already, with Liger's kernels where they are installed.

python -m peers.with_llamafactory '{...}'  (see benchmark_peers.py)
"""

import json
import sys
from pathlib import Path

from .trainer import EnoughError, arguments, dataset, has_liger, noting


def options(work: dict) -> dict:
    """Return what would stand in its YAML file."""
    method = work['method']
    found = arguments(work) | dict(
        stage='sft',
        do_train=True,
        model_name_or_path=work['model'],
        dataset='rows',  # must be named, though `tokenized_path` is read instead
        tokenized_path=str(Path(work['folder']) / 'tokenized'),
        cutoff_len=work['length'],
        finetuning_type='full' if method == 'full' else 'lora',
        disable_gradient_checkpointing=work['checkpointing'] == 'none',
        enable_liger_kernel=has_liger(),
    )
    if method != 'full':
        found |= dict(lora_rank=16, lora_alpha=16, lora_dropout=0.0, lora_target=','.join(work['targets']))
    if method == 'qlora':
        found |= dict(quantization_bit=4)
    return found


def main(work: dict) -> None:
    """Train `work`."""
    from llamafactory.train.tuner import run_exp

    chosen = options(work)
    dataset(work).save_to_disk(chosen['tokenized_path'])
    try:
        run_exp(chosen, callbacks=[noting(work)])
    except EnoughError:
        print('done')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
