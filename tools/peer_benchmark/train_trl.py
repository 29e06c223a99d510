"""Train one benchmark case with SFTTrainer of TRL: its default checkpointing, Liger kernels if installed.

benchmark_peers.py runs it in the environment of the peer, with the case as JSON:

    python -m peer_benchmark.train_trl '{"model": "...", ...}'
"""

import json
import sys

from .hf_trainer import dataset, has_liger, on_gpu, timing_callback, train_all_steps, training_arguments


def main(work: dict) -> None:
    """Train the case `work`."""
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    method, lora = work['method'], None
    # Trained weights are in float32, as in xtune.
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
        **training_arguments(work),
        model_init_kwargs=load,
        max_length=work['length'],
        gradient_checkpointing=work['checkpointing'] == 'all',
        use_liger_kernel=has_liger(),
    )
    train_all_steps(
        SFTTrainer(
            model=work['model'],
            args=config,
            train_dataset=dataset(work),
            peft_config=lora,
            callbacks=[timing_callback(work)],
        )
    )


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
