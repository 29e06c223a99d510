"""Train a model with an adapter on a base in bf16 and on one in float8, and print how far the two are apart.

    python tools/float8_check.py MODEL_FOLDER [--out FOLDER] [--steps 200] [--data FILE.jsonl] [--set NAME=VALUE ...]

A CUDA GPU with float8 is needed. Prints the largest and the mean relative difference of the two loss curves, each loss
being the mean of ten steps; the cosine of the adapters' gradients in the first step; tokens/s and peak memory; and what
it costs to add up products exactly, as the gradient's does. The text is the documentation that comes with Python, or
--data: rows with `text`. `--set` changes the configs of both runs, such as `--set speed.compile=True`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from statistics import mean, median
from typing import Any

import torch
from common.process import fail, json_lines, made

from xtune.config.load import load, parse_options
from xtune.config.presets import find
from xtune.config.wire import Job, wire
from xtune.data.rank_shard import RankShard
from xtune.engine.build_run_data import build_run_data
from xtune.engine.optimizations import optimize
from xtune.engine.prepare_model import build_llm
from xtune.errors import XtuneError
from xtune.methods.float8_checks import device_problem
from xtune.ops.float8_matmul import scaled_matmul, to_float8

METHODS = {'bf16': 'lora', 'float8': 'fp8_lora'}
WINDOW = 10  # steps whose mean is a point of a curve
SIZES = ((8192, 4096, 14336), (8192, 14336, 4096))  # tokens, outputs, inputs of layers of an 8B model


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'model',
        type=Path,
        metavar='MODEL_FOLDER',
        help='folder of a small model with its tokenizer, such as SmolLM2-135M-Instruct',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/float8_check'),
        metavar='FOLDER',
        help='gets the text and both runs (default: work_dirs/float8_check)',
    )
    parser.add_argument(
        '--steps', type=int, default=200, metavar='N', help='optimizer steps of each run, at least 10 (default: 200)'
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='FILE.jsonl',
        help='what both train on: rows with `text` (default: the documentation that comes with Python)',
    )
    parser.add_argument(
        '--set',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help='changes of both configs, as --cfg-options of xtune train has them, such as speed.compile=True',
    )
    args = parser.parse_args(argv)
    if args.steps < WINDOW:
        parser.error(
            f'--steps {args.steps}: a point of a curve is the mean of {WINDOW} steps, so give at least so many'
        )
    return args


def preset(base: str) -> str:
    """Return the preset that trains on `base`, bf16 or float8."""
    return f'smollm2_135m_{METHODS[base]}_selfcog_e2'


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is changed in both presets; writes the text first."""
    data = args.data or made(args.out) / 'text.jsonl'
    if args.data is None:
        rows = (json.dumps(dict(text=text)) for text in topics.values())
        data.write_text('\n'.join(rows) + '\n', encoding='utf-8')
    return {
        'base_model': str(args.model),
        'train_dataset.path': str(data),
        'train_dataset.map_fn': 'text',
        'train_dataset.map_args': None,
        'chat_template': 'plain',
        'overlong': 'split',
        'max_length': 512,
        'precision': 'bf16',
        'optimizer.lr': 5e-4,
        'schedule.batch_size': 4,
        'schedule.max_epochs': 100,
        'schedule.max_steps': args.steps,
        'log.every_steps': 1,
        'chat_samples.every_steps': None,
        'checkpoint.every_steps': None,
        'checkpoint.every_epochs': None,
    } | parse_options(args.set)


def train(base: str, changed: dict[str, Any], folder: Path) -> list[dict]:
    """Run `xtune train` on `base` and return the lines of its metrics with a loss."""
    pairs = [f'{name}={value}' for name, value in changed.items()]
    command = [sys.executable, '-m', 'xtune', 'train', preset(base), '--work-dir', folder / base, '--cfg-options']
    code = subprocess.run([*command, *pairs]).returncode
    if code:
        fail(f'the run on {base} ended with exit code {code}; see above')
    return [row for row in json_lines(folder / base / 'metrics.jsonl') if 'loss' in row]


def differences(one: list[float], other: list[float]) -> tuple[float, float]:
    """Return the largest and the mean relative difference of two loss curves, smoothed, to the first.

    Raises:
        ValueError: They are of different lengths, or shorter than a point's mean.
    """
    if len(one) != len(other):
        raise ValueError(f'curves of {len(one)} and {len(other)} steps cannot be compared')
    smooth = [[mean(losses[i : i + WINDOW]) for i in range(len(losses) - WINDOW + 1)] for losses in (one, other)]
    if not smooth[0]:
        raise ValueError(f'{len(one)} steps make no curve: each of its points is the mean of {WINDOW}')
    apart = [abs(b - a) / abs(a) for a, b in zip(*smooth, strict=True)]
    return max(apart), mean(apart)


def job_of(base: str, changed: dict[str, Any]) -> Job:
    """Return the run on `base`."""
    return wire(load(find(preset(base)), changed, check_types=True), base)


def first_gradients(job: Job, device: torch.device) -> torch.Tensor:
    """Return the gradients of all adapters in the first optimizer step, in one float64 vector."""
    torch.manual_seed(job.values.seed)
    data = build_run_data(job.model, job.data_spec, job.chat_samples, RankShard.of_rank(0, 1, 1))
    torch.manual_seed(job.values.seed)
    llm, dtype = build_llm(job.model, device)
    optimized = optimize(job.step, llm, dtype, device, None, num_ranks=1)
    task = optimized.task.train()
    for batch in data.steps[0]:
        task(batch).backward()
    return torch.cat([p.grad.double().flatten().cpu() for p in task.trained_parameters().values()])


def milliseconds(call: Callable[[], Any], times: int = 20) -> float:
    """Return how long `call` takes on the GPU, the median of several."""
    taken = []
    for _ in range(times + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return median(taken[3:])


def exact_sums(device: torch.device) -> None:
    """Print what exact sums cost against fast ones, and how far these are off."""
    for tokens, outputs, inputs in SIZES:
        left, right = (torch.randn(rows, inputs, device=device, dtype=torch.bfloat16) for rows in (tokens, outputs))
        (left8, scales), (right8, others) = to_float8(left), to_float8(right)
        others = others.reshape(1, -1)

        def product(fast: bool, given: tuple = (left8, scales, right8, others)) -> torch.Tensor:
            return scaled_matmul(*given, fast)

        fast, exact = (milliseconds(lambda fast=fast, product=product: product(fast)) for fast in (True, False))
        bf16 = milliseconds(lambda left=left, right=right: left @ right.t())
        off = (product(True).float() - product(False).float()).norm() / product(False).float().norm()
        print(
            f'{tokens} x {inputs} x {outputs}: bf16 {bf16:.3f} ms, float8 {fast:.3f} ms with fast sums, {exact:.3f} ms '
            f'with exact ones; fast ones are off by {off.item():.1e}'
        )


def main() -> None:
    """Do all of it."""
    args = arguments()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    problem = device_problem(device)
    if problem:
        fail(f'this needs {problem}')
    try:
        changed = options(args)
        for base in METHODS:
            job_of(base, changed)
    except XtuneError as error:
        fail(str(error))
    runs = {base: train(base, changed, args.out) for base in METHODS}
    gradients = [first_gradients(job_of(base, changed), device) for base in METHODS]
    print(f'\n{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {args.model}, {args.steps} steps')
    for base, rows in runs.items():
        speed = median(row['tokens_per_second'] for row in rows[len(rows) // 2 :])
        peak = max(row['memory_gib'] for row in rows)
        print(f'{base:<7}loss {rows[0]["loss"]:.4f} -> {rows[-1]["loss"]:.4f}, {speed:,.0f} tokens/s, {peak:.1f} GiB')
    largest, average = differences(*([row['loss'] for row in rows] for rows in runs.values()))
    print(f'loss curves (means of {WINDOW} steps): largest relative difference {largest:.2%}, mean {average:.2%}')
    same = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
    print(f'gradients of the adapters in step 1: cosine {same:.4f}')
    exact_sums(device)


if __name__ == '__main__':
    main()
