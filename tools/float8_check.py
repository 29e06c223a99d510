"""Train an adapter on a bf16 and on a float8 base model, and compare losses, gradients, speed and memory.

    python tools/float8_check.py MODEL_FOLDER [--out FOLDER] [--steps 200] [--data FILE.jsonl] [--set NAME=VALUE ...]

Needs a CUDA GPU with float8 support. Prints tokens/s and peak memory; the largest and the mean relative difference of
the loss curves, smoothed over ten steps; the cosine similarity of the adapter gradients in the first step; and the time
of float8 matmuls with fast and with exact accumulation (exact accumulation is used for gradients). The text is the
documentation included in Python, or --data with rows that have `text`. `--set` changes the configs of both runs, for
example `--set speed.compile=True`.
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
from common.subprocesses import exit_with_error, read_json_lines, writable_folder

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
SMOOTHING_STEPS = 10  # a point of a smoothed loss curve is the mean of this number of steps
MATMUL_SIZES = ((8192, 4096, 14336), (8192, 14336, 4096))  # tokens, outputs, inputs; linear layers of an 8B model


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
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
        help='folder for the text and both runs (default: work_dirs/float8_check)',
    )
    parser.add_argument(
        '--steps', type=int, default=200, metavar='N', help='optimizer steps per run, at least 10 (default: 200)'
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='FILE.jsonl',
        help='training data: rows with `text` (default: the documentation included in Python)',
    )
    parser.add_argument(
        '--set',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help='options for both configs, like --cfg-options of xtune train, such as speed.compile=True',
    )
    args = parser.parse_args(argv)
    if args.steps < SMOOTHING_STEPS:
        parser.error(f'--steps {args.steps}: give at least {SMOOTHING_STEPS}, the number of steps per point of a curve')
    return args


def preset(base: str) -> str:
    """Return the preset for the base model `base`: 'bf16' or 'float8'."""
    return f'smollm2_135m_{METHODS[base]}_selfcog_e2'


def shared_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options for both presets, after writing the text if --data is not given."""
    data = args.data or writable_folder(args.out) / 'text.jsonl'
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


def train(base: str, options: dict[str, Any], folder: Path) -> list[dict]:
    """Run `xtune train` on `base` and return the metrics with a loss, one dict per step."""
    pairs = [f'{name}={value}' for name, value in options.items()]
    command = [sys.executable, '-m', 'xtune', 'train', preset(base), '--work-dir', folder / base, '--cfg-options']
    code = subprocess.run([*command, *pairs]).returncode
    if code:
        exit_with_error(f'the {base} run failed with exit code {code}; see above')
    return [row for row in read_json_lines(folder / base / 'metrics.jsonl') if 'loss' in row]


def curve_differences(reference: list[float], other: list[float]) -> tuple[float, float]:
    """Return the largest and the mean difference of two smoothed loss curves, relative to `reference`.

    Raises:
        ValueError: The lengths differ, or are smaller than SMOOTHING_STEPS.
    """
    if len(reference) != len(other):
        raise ValueError(f'curves of {len(reference)} and {len(other)} steps cannot be compared')
    smooth = [
        [mean(losses[i : i + SMOOTHING_STEPS]) for i in range(len(losses) - SMOOTHING_STEPS + 1)]
        for losses in (reference, other)
    ]
    if not smooth[0]:
        raise ValueError(f'{len(reference)} steps: a curve needs at least {SMOOTHING_STEPS}')
    relative = [abs(b - a) / abs(a) for a, b in zip(*smooth, strict=True)]
    return max(relative), mean(relative)


def wire_job(base: str, options: dict[str, Any]) -> Job:
    """Return the `Job` of the run on `base`."""
    return wire(load(find(preset(base)), options, check_types=True), base)


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
    """Return the median GPU time of `call` in milliseconds."""
    durations = []
    for _ in range(times + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        durations.append(start.elapsed_time(end))
    return median(durations[3:])


def print_accumulation_times(device: torch.device) -> None:
    """Print the time of matmuls with fast and with exact accumulation, and the error of fast accumulation."""
    for tokens, outputs, inputs in MATMUL_SIZES:
        left, right = (torch.randn(rows, inputs, device=device, dtype=torch.bfloat16) for rows in (tokens, outputs))
        (left8, left_scales), (right8, right_scales) = to_float8(left), to_float8(right)
        right_scales = right_scales.reshape(1, -1)

        def matmul(fast: bool, operands: tuple = (left8, left_scales, right8, right_scales)) -> torch.Tensor:
            return scaled_matmul(*operands, fast)

        fast, exact = (milliseconds(lambda fast=fast, matmul=matmul: matmul(fast)) for fast in (True, False))
        bf16 = milliseconds(lambda left=left, right=right: left @ right.t())
        error = (matmul(True).float() - matmul(False).float()).norm() / matmul(False).float().norm()
        print(
            f'{tokens} x {inputs} x {outputs}: bf16 {bf16:.3f} ms, float8 {fast:.3f} ms with fast accumulation, '
            f'{exact:.3f} ms with exact accumulation; relative error of fast accumulation {error.item():.1e}'
        )


def main() -> None:
    """Train on both base models and print the comparison."""
    args = parse_arguments()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    problem = device_problem(device)
    if problem:
        exit_with_error(f'this tool needs {problem}')
    try:
        options = shared_options(args)
        for base in METHODS:
            wire_job(base, options)
    except XtuneError as error:
        exit_with_error(str(error))
    runs = {base: train(base, options, args.out) for base in METHODS}
    gradients = [first_gradients(wire_job(base, options), device) for base in METHODS]
    print(f'\n{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {args.model}, {args.steps} steps')
    for base, rows in runs.items():
        speed = median(row['tokens_per_second'] for row in rows[len(rows) // 2 :])
        peak = max(row['memory_gib'] for row in rows)
        print(f'{base:<7}loss {rows[0]["loss"]:.4f} -> {rows[-1]["loss"]:.4f}, {speed:,.0f} tokens/s, {peak:.1f} GiB')
    largest, average = curve_differences(*([row['loss'] for row in rows] for rows in runs.values()))
    print(
        f'loss curves (means of {SMOOTHING_STEPS} steps): largest relative difference {largest:.2%}, mean {average:.2%}'
    )
    similarity = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
    print(f'adapter gradients in step 1: cosine similarity {similarity:.4f}')
    print_accumulation_times(device)


if __name__ == '__main__':
    main()
