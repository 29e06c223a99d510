"""Record the losses of fixed short runs at full precision, or compare them bit for bit with recorded losses.

    python tools/reference_losses.py record before.json [--only NAME ...] [--gpu]
    python tools/reference_losses.py compare before.json [--only NAME ...] [--gpu]

For refactoring: on the same machine with the same libraries, a change that only moves or renames code reproduces every
loss exactly. Each run is `xtune train` on a small random Llama and 40 rows of text. Runs with names ending in `_x2` use
two ranks. Runs on a CPU, or with `--gpu` on one GPU (on two, if available). Prints the first and the last loss of each
run, and `equal` or `DIFFERS`. Exits with 1 if a value differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = [
    {'instruction': f'What is {a} plus {b}?', 'input': '', 'output': f'It is {a + b}.' + ' Indeed.' * (a * b // 3)}
    for a in range(8)
    for b in range(5)
]
# Name of the run: (preset, options).
CPU = {
    'lora': ('smollm2_135m_lora_alpaca_e1', {}),
    'lora_unpacked': ('smollm2_135m_lora_alpaca_e1', {'pack': False}),
    'lora_bf16': ('smollm2_135m_lora_alpaca_e1', {'precision': 'bf16'}),
    'lora_autocast': ('smollm2_135m_lora_alpaca_e1', {'precision': 'bf16', 'speed.master_weights': False}),
    'lora_checkpointed': ('smollm2_135m_lora_alpaca_e1', {'activation_checkpointing': 'all'}),
    'lora_offloaded': ('smollm2_135m_lora_alpaca_e1', {'activation_checkpointing': 'offload'}),
    'qlora': ('smollm2_135m_qlora_alpaca_e1', {}),
    'full': ('smollm2_135m_full_alpaca_e1', {}),
    'full_bf16_unpacked': ('smollm2_135m_full_alpaca_e1', {'precision': 'bf16', 'pack': False}),
    'lora_ddp_x2': ('smollm2_135m_lora_alpaca_e1', {'strategy.name': 'ddp'}),
    'lora_ulysses_x2': (
        'smollm2_135m_lora_alpaca_e1',
        {'strategy.name': 'ddp', 'strategy.sequence_parallel_size': 2},
    ),
    'full_fsdp2_x2': ('smollm2_135m_full_alpaca_e1', {'strategy.name': 'fsdp2'}),
    'lora_zero2_x2': ('smollm2_135m_lora_alpaca_e1', {'--deepspeed': 'zero2'}),
    'full_zero3_x2': ('smollm2_135m_full_alpaca_e1', {'--deepspeed': 'zero3'}),
}
GPU = {
    'lora': ('smollm2_135m_lora_alpaca_e1', {}),
    'lora_eager': ('smollm2_135m_lora_alpaca_e1', {'speed.compile': False}),
    'lora_unpacked': ('smollm2_135m_lora_alpaca_e1', {'pack': False}),
    'lora_checkpointed': ('smollm2_135m_lora_alpaca_e1', {'activation_checkpointing': 'all'}),
    'lora_offloaded': ('smollm2_135m_lora_alpaca_e1', {'activation_checkpointing': 'offload'}),
    'qlora': ('smollm2_135m_qlora_alpaca_e1', {}),
    'float8': ('smollm2_135m_fp8_lora_alpaca_e1', {}),
    'full': ('smollm2_135m_full_alpaca_e1', {}),
    'lora_ddp_x2': ('smollm2_135m_lora_alpaca_e1', {'strategy.name': 'ddp'}),
    'full_fsdp2_x2': ('smollm2_135m_full_alpaca_e1', {'strategy.name': 'fsdp2'}),
}
COMMON = {
    'max_length': 160,
    'schedule.batch_size': 1,
    'schedule.gradient_accumulation_steps': 2,
    'schedule.max_epochs': 9,
    'log.every_steps': 1,
    'log.tensorboard': False,
    'log.plot': False,
    'chat_samples.every_steps': None,
    'chat_samples.prompts': [],
    'checkpoint.every_steps': None,
    'data.num_proc': 1,
}


def tokenizer_folder() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, whose tokenizer the runs use."""
    default = Path.home() / '.cache/xtune/models/SmolLM2-135M-Instruct'
    return Path(os.environ.get('XTUNE_TEST_MODEL', default))


def write_random_model(folder: Path, hidden: int, layers: int) -> None:
    """Write a random Llama of `layers` layers with hidden size `hidden` and SmolLM2's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def losses_of(name: str, preset: str, options: dict, folder: Path, steps: int) -> list[list[float]]:
    """Train once and return [loss, gradient norm] of each optimizer step."""
    work_dir = folder / name
    options = {**COMMON, 'schedule.max_steps': steps, **options}
    options |= {'base_model': str(folder / 'model'), 'train_dataset.path': str(folder / 'rows.json')}
    options |= {'work_dir': str(work_dir)}
    command = [sys.executable, '-m', 'xtune', 'train', preset]
    if '--deepspeed' in options:
        command += ['--deepspeed', options.pop('--deepspeed')]
    command += ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1', 'XTUNE_CACHE': str(folder / 'cache')}
    if name.endswith('_x2'):
        env['NPROC_PER_NODE'] = '2'
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    if done.returncode:
        raise SystemExit(f'{name} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}')
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    return [[row['loss'], row['grad_norm']] for row in rows if 'loss' in row]


def main() -> int:
    """Record or compare; return 1 if a value differs."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('action', choices=['record', 'compare'])
    parser.add_argument('file', type=Path, help='JSON file with the recorded losses')
    parser.add_argument('--only', nargs='*', metavar='NAME', help='names of runs (default: all)')
    parser.add_argument('--gpu', action='store_true', help='the runs for GPUs')
    parser.add_argument('--steps', type=int, default=8, help='optimizer steps per run (default: 8)')
    arguments = parser.parse_args()
    runs = GPU if arguments.gpu else CPU
    names = arguments.only or list(runs)
    if arguments.gpu and not arguments.only:
        import torch

        names = [name for name in names if not name.endswith('_x2') or torch.cuda.device_count() > 1]
    recorded = json.loads(arguments.file.read_text(encoding='utf-8')) if arguments.action == 'compare' else {}
    losses, num_different = {}, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / 'rows.json').write_text(json.dumps(ROWS), encoding='utf-8')
        write_random_model(folder / 'model', *((256, 8) if arguments.gpu else (32, 2)))
        for run in names:
            losses[run] = losses_of(run, *runs[run], folder, arguments.steps)
            differs = arguments.action == 'compare' and losses[run] != recorded.get(run)
            num_different += differs
            remark = '' if arguments.action == 'record' else ('  DIFFERS' if differs else '  equal')
            print(f'{run:24} {losses[run][0][0]:.9f} -> {losses[run][-1][0]:.9f}{remark}', flush=True)
            if differs:
                print(f'  recorded {recorded.get(run)}\n  now      {losses[run]}')
    if arguments.action == 'record':
        arguments.file.write_text(json.dumps(losses, indent=1) + '\n', encoding='utf-8')
    return 1 if num_different else 0


if __name__ == '__main__':
    sys.exit(main())
