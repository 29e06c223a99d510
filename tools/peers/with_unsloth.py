"""Unsloth's model in TRL's SFTTrainer, as its notebooks do.

python -m peers.with_unsloth '{...}'  (see benchmark_peers.py)
"""

import json
import sys

from .trainer import arguments, dataset, noting, until_enough


def main(work: dict) -> None:
    """Train `work`."""
    from unsloth import FastLanguageModel  # isort: skip  # before transformers and trl, which it changes
    from trl import SFTConfig, SFTTrainer

    method = work['method']
    checkpointing = 'unsloth' if work['checkpointing'] == 'all' else False
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=work['model'],
        max_seq_length=work['length'],
        load_in_4bit=method == 'qlora',
        full_finetuning=method == 'full',
        # Weights that are trained are in float32, as in the other contenders.
        float32_mixed_precision=True if method == 'full' else None,
        use_gradient_checkpointing=checkpointing,
    )
    if method != 'full':
        model = FastLanguageModel.get_peft_model(
            model,
            r=16,
            target_modules=work['targets'],
            lora_alpha=16,
            lora_dropout=0,
            bias='none',
            use_gradient_checkpointing=checkpointing,
            random_state=0,
        )
    # Its own way of checkpointing is chosen above; the trainer's switch would turn on another one.
    off = {} if checkpointing else dict(gradient_checkpointing=False)
    config = SFTConfig(**arguments(work), max_length=work['length'], **off)
    until_enough(
        SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=dataset(work),
            args=config,
            callbacks=[noting(work)],
        )
    )


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
