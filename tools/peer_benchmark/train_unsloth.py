"""Train one benchmark case with the model of Unsloth in SFTTrainer of TRL, as in the notebooks of Unsloth.

benchmark_peers.py runs it in the environment of the peer, with the case as JSON:

    python -m peer_benchmark.train_unsloth '{"model": "...", ...}'
"""

import json
import sys

from .hf_trainer import dataset, timing_callback, train_all_steps, training_arguments


def main(work: dict) -> None:
    """Train the case `work`."""
    from unsloth import FastLanguageModel  # isort: skip  # must be imported before transformers and trl, which it patches
    from trl import SFTConfig, SFTTrainer

    method = work['method']
    checkpointing = 'unsloth' if work['checkpointing'] == 'all' else False
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=work['model'],
        max_seq_length=work['length'],
        load_in_4bit=method == 'qlora',
        full_finetuning=method == 'full',
        # Trained weights are in float32, as for the other contenders.
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
    # The implementation of Unsloth is selected above; the option of the trainer would enable another one.
    disabled = {} if checkpointing else dict(gradient_checkpointing=False)
    config = SFTConfig(**training_arguments(work), max_length=work['length'], **disabled)
    train_all_steps(
        SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=dataset(work),
            args=config,
            callbacks=[timing_callback(work)],
        )
    )


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
