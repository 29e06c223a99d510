"""TRL's SFTTrainer, with gradient checkpointing as its default is, and Liger's kernels where they are installed.

python -m peers.with_trl '{...}'  (see benchmark_peers.py)
"""

import json
import sys

from .trainer import arguments, dataset, has_liger, noting, on_gpu, until_enough


def main(work: dict) -> None:
    """Train `work`."""
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    method, lora = work['method'], None
    # Weights that are trained are in float32, as xtune keeps them.
    dtype = torch.bfloat16 if on_gpu() and method != 'full' else torch.float32
    load = dict(dtype=dtype)
    if method == 'qlora':
        load['quantization_config'] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type='nf4',
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if method != 'full':
        lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules=work['targets'], task_type='CAUSAL_LM')
    config = SFTConfig(
        **arguments(work),
        model_init_kwargs=load,
        max_length=work['length'],
        gradient_checkpointing=work['checkpointing'] == 'all',
        use_liger_kernel=has_liger(),
    )
    until_enough(
        SFTTrainer(
            model=work['model'], args=config, train_dataset=dataset(work), peft_config=lora, callbacks=[noting(work)]
        )
    )


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
