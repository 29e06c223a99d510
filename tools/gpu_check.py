"""Train an 8B-shaped random model for a few steps on one GPU and print what the run reports.

No hub is needed: weights are random, the text is made of random words, the tokenizer is the one in the folder given.
The figures are those of xtune's own progress lines (tokens/s without padding, peak allocated GiB).

Usage: python tools/gpu_check.py TOKENIZER_FOLDER WORK_FOLDER [lora qlora full ...]
"""

import json
import random
import subprocess
import sys
from pathlib import Path

SHAPE = dict(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)
STEPS = 8


def make_model(folder: Path, tokenizer: Path, shape: dict) -> None:
    """Write a random Llama of `shape` with the tokenizer of `tokenizer`."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    with torch.device('cuda' if torch.cuda.is_available() else 'cpu'):
        model = LlamaForCausalLM(LlamaConfig(**shape, dtype='bfloat16'))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def make_rows(path: Path, count: int) -> None:
    """Write rows of 100 to 900 random words."""
    random.seed(0)
    words = ['sun', 'river', 'counts', 'seven', 'green', 'because', 'token', 'never', 'above', 'train']
    with path.open('w', encoding='utf-8') as file:
        for _ in range(count):
            text = ' '.join(random.choices(words, k=random.randint(100, 900)))
            file.write(json.dumps(dict(instruction='Go on.', output=text)) + '\n')


def train(method: str, folder: Path) -> int:
    """Run `xtune train` with `method` on the model in `folder`."""
    options = {
        'base_model': folder / 'model',
        'train_dataset.path': folder / 'rows.jsonl',
        'train_dataset.map_fn': 'alpaca',
        'train_dataset.map_args': None,
        'work_dir': folder / method,
        'max_length': 2048,
        'schedule.batch_size': 4,
        'schedule.max_steps': STEPS,
        'schedule.max_epochs': 5,
        'log.every_steps': 2,
        'checkpointing': 'all',
        'chat_samples.every_steps': None,
        'checkpoint.every_steps': None,
    }
    command = ['xtune', 'train', f'smollm2_135m_{method}_selfcog_e2', '--cfg-options']
    return subprocess.call(
        [sys.executable, '-m', 'xtune.cli', *command[1:], *(f'{name}={value}' for name, value in options.items())]
    )


def main() -> None:
    """Make the model and the rows, then run each method."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    tokenizer, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    make_model(folder / 'model', tokenizer, SHAPE)
    make_rows(folder / 'rows.jsonl', 400)
    failed = [method for method in sys.argv[3:] or ['lora', 'qlora'] if train(method, folder)]
    sys.exit(f'failed: {failed}' if failed else 0)


if __name__ == '__main__':
    main()
