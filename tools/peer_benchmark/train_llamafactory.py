"""Train one benchmark case with LLaMA-Factory: pre-tokenized data, Liger kernels if installed.

benchmark_peers.py runs it in the environment of the peer, with the case as JSON:

    python -m peer_benchmark.train_llamafactory '{"model": "...", ...}'
"""

import json
import sys
from pathlib import Path

from .hf_trainer import LastStepDone, dataset, has_liger, timing_callback, training_arguments


def yaml_settings(work: dict) -> dict:
    """Return the settings of a YAML file of LLaMA-Factory."""
    method = work['method']
    settings = training_arguments(work) | dict(
        stage='sft',
        do_train=True,
        model_name_or_path=work['model'],
        dataset='rows',  # required, although `tokenized_path` is read instead
        tokenized_path=str(Path(work['folder']) / 'tokenized'),
        cutoff_len=work['length'],
        finetuning_type='full' if method == 'full' else 'lora',
        disable_gradient_checkpointing=work['checkpointing'] == 'none',
        enable_liger_kernel=has_liger(),
    )
    if method != 'full':
        settings |= dict(lora_rank=16, lora_alpha=16, lora_dropout=0.0, lora_target=','.join(work['targets']))
    if method == 'qlora':
        settings |= dict(quantization_bit=4)
    return settings


def main(work: dict) -> None:
    """Train the case `work`."""
    from llamafactory.train.tuner import run_exp

    settings = yaml_settings(work)
    dataset(work).save_to_disk(settings['tokenized_path'])
    try:
        run_exp(settings, callbacks=[timing_callback(work)])
    except LastStepDone:
        print('done')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
