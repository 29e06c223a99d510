#!/usr/bin/env python
"""Compare the speed and memory of xtune, a bare training loop, and trl, llamafactory and unsloth if installed.

    python tools/benchmark_peers.py FOLDER                     shapes of Llama 3 8B and Qwen2.5 1.5B; needs a GPU
    python tools/benchmark_peers.py FOLDER --models gemma_like moe --methods lora --lengths 2048 8192
    python tools/benchmark_peers.py FOLDER --python unsloth=/envs/unsloth/bin/python --resume
    python tools/benchmark_peers.py FOLDER --models tiny --lengths 64 --steps 7            a tiny model, also on a CPU

All contenders do the same work: sequences of random token ids, all trained, --batch x length tokens per optimizer step,
LoRA of rank 16 on all linear layers (mixture of experts: on those of attention), AdamW, lr 1e-4, bf16, random weights.
Each run is a separate process. Prints a table, with one row per run:

    tokens/s          median of the steps after the first 5, from the end of a step to the end of the next
    peak GiB          memory allocated by the process (on a CPU: resident memory)
    xtune to it       tokens/s of xtune for the same work / tokens/s of this contender
    s to first step   from the start of the process to the end of its first step: imports, loading, compilation; the
                      compile cache is warm unless --cold is set

Activation checkpointing: 'all' checkpoints every layer (unsloth: its own implementation, which offloads), 'none' no
layer. 'auto' and 'offload' are values of xtune, followed by the number of checkpointed layers at the end: more than
requested after an out-of-memory retry. By default, the bare loop runs only LoRA without checkpointing. Work that a peer
does not support is omitted. A failed run is a row with its reason. Writes FOLDER/benchmark.md, benchmark.json and
results.jsonl (one run per line). Exits with 1 if a run of xtune or of the bare loop failed, except for out of memory
and for runs that --minutes excludes, and with 2 if none of the requested contenders can run.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from common.benchmark_configs import WARMUP_STEPS
from common.subprocesses import INTERRUPTED, exit_with_error, read_json_lines, writable_folder
from common.synthetic_inputs import make_in_subprocess
from peer_benchmark import cases, make_inputs, run_case
from peer_benchmark.model_shapes import SHAPES
from peer_benchmark.report import json_record, results_table

from xtune.config.sections import SCALARS
from xtune.utils.atomic import write_text

# Default models, with methods and values of activation checkpointing.
DEFAULT_WORK = {
    'llama3_8b': (['lora', 'qlora', 'fp8_lora'], ['none', 'all']),
    'qwen2_5_1_5b': (['lora', 'qlora', 'full'], ['none']),
}
OTHER_MODELS = (['lora'], ['none', 'all'])
# The work of the bare loop if --contenders is not given.
BARE_WORK = ('lora', 'none')
# Tokens; the minimum of the option max_length.
MIN_LENGTH = SCALARS['max_length'].metadata['low']


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='folder for models, runs and results')
    parser.add_argument(
        '--models', nargs='+', choices=SHAPES, default=list(DEFAULT_WORK), help='model shapes (default: two)'
    )
    parser.add_argument('--methods', nargs='+', choices=cases.METHODS, help='(default: depends on the model)')
    parser.add_argument('--lengths', nargs='+', type=int, default=[2048], help='tokens per sequence (default: 2048)')
    parser.add_argument(
        '--checkpointing', nargs='+', choices=cases.CHECKPOINTING, help='(default: depends on the model)'
    )
    parser.add_argument('--contenders', nargs='+', choices=cases.CONTENDERS, help='(default: all that are installed)')
    parser.add_argument('--batch', type=int, default=4, help='sequences per optimizer step (default: 4)')
    parser.add_argument('--steps', type=int, default=20, help='optimizer steps per run (default: 20)')
    parser.add_argument('--timeout', type=float, default=300, help='time limit of a run in seconds (default: 300)')
    parser.add_argument('--minutes', type=float, help='start no run after this time (default: no limit)')
    parser.add_argument(
        '--python', nargs='+', default=[], metavar='NAME=PATH', help='the Python interpreter of a contender'
    )
    parser.add_argument('--cold', action='store_true', help='start each run with empty compile and data caches')
    parser.add_argument('--resume', action='store_true', help='keep the results of an earlier call in FOLDER')
    args = parser.parse_args(argv)
    pairs = [pair.partition('=')[::2] for pair in args.python]
    for name, path in pairs:
        if name not in cases.CONTENDERS or not os.access(path, os.X_OK):
            names = ', '.join(cases.CONTENDERS)
            parser.error(f'--python {name}={path}: give NAME=PATH, with one of {names} and the path of an interpreter')
    args.python = {name: os.path.abspath(path) for name, path in pairs}
    if args.steps < 2 or args.batch < 1:
        parser.error('--steps must be at least 2 (the speed is measured between steps), --batch at least 1')
    if min(args.lengths) < MIN_LENGTH:
        parser.error(f'--lengths {min(args.lengths)}: a sequence needs at least {MIN_LENGTH} tokens')
    if args.timeout <= 0:
        parser.error(f'--timeout {args.timeout:g}: give more than 0 seconds')
    if args.minutes is not None and not args.minutes >= 0:
        parser.error(f'--minutes {args.minutes:g}: give 0 (start no run) or more')
    return args


def requested_cases(args: argparse.Namespace) -> list[cases.Case]:
    """Return the requested runs of installed contenders; exit with an error if there are none."""
    requested = args.contenders or cases.CONTENDERS
    installed = [name for name in requested if run_case.is_installed(name, run_case.interpreter(name, args.python))]
    for name in requested:
        if name not in installed:
            print(f'{name}: not installed, skipped')
    selected = []
    for model in args.models:
        methods, checkpointing = DEFAULT_WORK.get(model, OTHER_MODELS)
        methods, checkpointing = args.methods or methods, args.checkpointing or checkpointing
        selected += cases.make_cases({model: methods}, args.lengths, checkpointing, installed, args.batch, args.steps)
    if not selected:
        reason = 'supports these --methods with this --checkpointing' if installed else 'is installed'
        exit_with_error(f'nothing to run: none of {", ".join(requested)} {reason}; add --contenders xtune')
    if args.contenders:
        return selected
    return [case for case in selected if case.contender != 'bare' or (case.method, case.checkpointing) == BARE_WORK]


def make_models_and_rows(args: argparse.Namespace, folder: Path) -> dict:
    """Write models and rows in a separate process; return the device and the version of torch."""
    settings = dict(folder=str(folder), models=args.models, lengths=args.lengths, rows=args.steps * args.batch)
    return make_in_subprocess(make_inputs.__name__, settings, folder)


def earlier_results(path: Path, resume: bool) -> dict[cases.Case, cases.Result]:
    """Return the results of an earlier call without failures; an empty dict unless `resume`."""
    try:
        results = [cases.Result.from_json(record) for record in read_json_lines(path)] if resume else []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        exit_with_error(f'cannot --resume: {path} is not a list of results ({error}); remove it, or use another folder')
    return {result.case: result for result in results if not result.problem}


def write(folder: Path, title: str, machine: dict, results: list[cases.Result]) -> None:
    """Write all results so far; each file is written atomically."""
    write_text(folder / 'results.jsonl', ''.join(result.to_json() + '\n' for result in results))
    write_text(folder / 'benchmark.md', f'{title}\n\n{results_table(results)}')
    report = dict(machine=machine, runs=[json_record(result, results) for result in results])
    write_text(folder / 'benchmark.json', json.dumps(report, indent=1) + '\n')


def run_all(args: argparse.Namespace, folder: Path) -> list[cases.Result]:
    """Run every case and write the results after each, so that an interruption loses none."""
    start = time.monotonic()
    if (folder / 'results.jsonl').exists() and not args.resume:
        exit_with_error(f'{folder} has results of an earlier call: add --resume to continue, or use another folder')
    done = earlier_results(folder / 'results.jsonl', args.resume)
    requested, machine = requested_cases(args), make_models_and_rows(args, folder)
    measured_steps = f'the steps after the first {WARMUP_STEPS}' if args.steps > WARMUP_STEPS else 'all steps'
    title = (
        f'{machine["device"]}, torch {machine["torch"]}: {args.batch} sequences per step, {args.steps} steps, '
        f'speed is the median of {measured_steps}.'
    )
    print(title, flush=True)
    order = {case: number for number, case in enumerate(requested)}
    results = list(done.values())
    write(folder, title, machine, results)
    for case in (case for case in requested if case not in done):
        if args.minutes is not None and time.monotonic() - start > 60 * args.minutes:
            result = cases.Result(case, problem=cases.OUT_OF_TIME)
        else:
            python = run_case.interpreter(case.contender, args.python)
            result = run_case.run(case, folder, args.timeout, python, args.cold)
        print(f'{case.name}: {result.problem or f"{result.speed:,.0f} tokens/s"} ({result.seconds:.0f} s)', flush=True)
        results = sorted([*results, result], key=lambda result: order.get(result.case, -1))
        write(folder, title, machine, results)
    return results


def main(argv: list[str] | None = None) -> None:
    """Run all requested cases and print the table."""
    args = parse_arguments(argv)
    folder = writable_folder(args.folder)
    try:
        results = run_all(args, folder)
    except KeyboardInterrupt:
        print(f'interrupted; results so far are in {folder}, and --resume continues')
        sys.exit(INTERRUPTED)
    print('\n' + results_table(results), end='')
    accepted = ('', cases.OUT_OF_MEMORY, cases.OUT_OF_TIME)
    sys.exit(1 if any(r.problem not in accepted for r in results if r.case.contender in cases.XTUNE_BASED) else 0)


if __name__ == '__main__':
    main()
