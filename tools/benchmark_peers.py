#!/usr/bin/env python
"""The same work by xtune, by a bare loop over the same model, and by trl, llamafactory and unsloth if installed.

    python tools/benchmark_peers.py FOLDER                     shapes of Llama 3 8B and Qwen2.5 1.5B, on a GPU
    python tools/benchmark_peers.py FOLDER --models gemma_like moe --methods lora --lengths 2048 8192
    python tools/benchmark_peers.py FOLDER --python unsloth=/envs/unsloth/bin/python --resume
    python tools/benchmark_peers.py FOLDER --models tiny --lengths 64 --steps 7            a tiny model, on CPUs too

Work: rows of random token ids, all trained, --batch x length tokens an optimizer step, LoRA of rank 16 on all linear
layers (of a mixture of experts: of attention), AdamW, lr 1e-4, bf16; random weights. Each run is a process of its own.

    tokens/s          median of the steps after the first 5, from the end of a step to the end of the next
    peak GiB          allocated by the process (on a CPU: resident)
    xtune to it       tokens/s of xtune at the same work / tokens/s of this contender
    s to first step   from the start of the process to the end of its first step: imports, loading, compiling; what
                      was compiled before is found again, unless --cold

Checkpointing: 'all' recomputes every layer (unsloth: its own way, which offloads), 'none' keeps everything; 'auto' and
'offload' are xtune's, which says how many layers it recomputed at last: more than asked for if memory ran out. By
default the bare loop does LoRA without recomputation only. A peer has no run of what it cannot do, and a run that
fails is a row with its reason. Writes FOLDER/benchmark.md, benchmark.json and results.jsonl, one run a line; exits
with 1 if a run of xtune's or of the bare loop failed, unless memory ran out or --minutes were over, and with 2 if none
of the contenders that are named can run.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from common.configs import WARM_UP
from common.material import made_apart
from common.process import INTERRUPTED, fail, json_lines, made
from peers import cases, material, runs
from peers.report import compared, table
from peers.shapes import SHAPES

from xtune.config.sections import SCALARS
from xtune.utils.atomic import write_text

# Small enough for a first look: methods and ways of checkpointing of each model.
DEFAULT = {
    'llama3_8b': (['lora', 'qlora', 'fp8_lora'], ['none', 'all']),
    'qwen2_5_1_5b': (['lora', 'qlora', 'full'], ['none']),
}
USUAL = (['lora'], ['none', 'all'])
# What the bare loop does if no contenders are named.
BARE = ('lora', 'none')
# Tokens; a config takes no shorter rows.
SHORTEST = SCALARS['max_length'].metadata['low']


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='gets models, runs and results')
    parser.add_argument('--models', nargs='+', choices=SHAPES, default=list(DEFAULT), help='shapes (default: two)')
    parser.add_argument('--methods', nargs='+', choices=cases.METHODS, help='(default: some for each model)')
    parser.add_argument('--lengths', nargs='+', type=int, default=[2048], help='tokens of a row (default: 2048)')
    parser.add_argument(
        '--checkpointing', nargs='+', choices=cases.CHECKPOINTING, help='(default: some for each model)'
    )
    parser.add_argument('--contenders', nargs='+', choices=cases.CONTENDERS, help='(default: all that are installed)')
    parser.add_argument('--batch', type=int, default=4, help='rows of a step (default: 4)')
    parser.add_argument('--steps', type=int, default=20, help='optimizer steps of a run (default: 20)')
    parser.add_argument('--timeout', type=float, default=300, help='seconds of a run (default: 300)')
    parser.add_argument('--minutes', type=float, help='begin no run later than this (default: begin all)')
    parser.add_argument('--python', nargs='+', default=[], metavar='NAME=PATH', help="a contender's own interpreter")
    parser.add_argument('--cold', action='store_true', help='let each run compile and tokenize anew')
    parser.add_argument('--resume', action='store_true', help='keep what an earlier call in FOLDER measured')
    args = parser.parse_args(given)
    pairs = [pair.partition('=')[::2] for pair in args.python]
    for name, path in pairs:
        if name not in cases.CONTENDERS or not os.access(path, os.X_OK):
            names = ', '.join(cases.CONTENDERS)
            parser.error(f'--python {name}={path}: give NAME=PATH, one of {names} and an interpreter that is there')
    args.python = {name: os.path.abspath(path) for name, path in pairs}
    if args.steps < 2 or args.batch < 1:
        parser.error('--steps must be at least 2 (speed is from one step to the next), --batch 1')
    if min(args.lengths) < SHORTEST:
        parser.error(f'--lengths {min(args.lengths)}: a row has at least {SHORTEST} tokens')
    if args.timeout <= 0:
        parser.error(f'--timeout {args.timeout:g}: a run needs more than 0 seconds')
    if args.minutes is not None and not args.minutes >= 0:
        parser.error(f'--minutes {args.minutes:g}: give 0 (begin no run) or more')
    return args


def chosen(args: argparse.Namespace) -> list[cases.Case]:
    """Return the runs that the command line asks for, of contenders that are installed; none ends the program."""
    wanted = args.contenders or cases.CONTENDERS
    there = [name for name in wanted if runs.installed(name, runs.python_of(name, args.python))]
    for name in wanted:
        if name not in there:
            print(f'{name}: not installed, left out')
    found = []
    for model in args.models:
        methods, ways = DEFAULT.get(model, USUAL)
        methods, ways = args.methods or methods, args.checkpointing or ways
        found += cases.cases({model: methods}, args.lengths, ways, there, args.batch, args.steps)
    if not found:
        able = 'is installed' if not there else 'can do these --methods with this --checkpointing'
        fail(f'none of {", ".join(wanted)} {able}, so there is nothing to run; --contenders xtune always can')
    if args.contenders:
        return found
    return [case for case in found if case.contender != 'bare' or (case.method, case.checkpointing) == BARE]


def make(args: argparse.Namespace, folder: Path) -> dict:
    """Make models and rows in a process of its own; return what the machine is."""
    wanted = dict(folder=str(folder), models=args.models, lengths=args.lengths, rows=args.steps * args.batch)
    return made_apart(material.__name__, wanted, folder)


def known(path: Path, resume: bool) -> dict[cases.Case, cases.Result]:
    """Return what an earlier call measured, without its failures; nothing unless `resume`."""
    try:
        results = [cases.Result.of(found) for found in json_lines(path)] if resume else []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fail(f'{path} is no list of results ({error}), so there is nothing to --resume; remove it, or begin anew')
    return {result.case: result for result in results if not result.problem}


def write(folder: Path, title: str, machine: dict, results: list[cases.Result]) -> None:
    """Write all that is known so far, each file whole or not at all."""
    write_text(folder / 'results.jsonl', ''.join(one.to_json() + '\n' for one in results))
    write_text(folder / 'benchmark.md', f'{title}\n\n{table(results)}')
    found = dict(machine=machine, runs=[compared(one, results) for one in results])
    write_text(folder / 'benchmark.json', json.dumps(found, indent=1) + '\n')


def run_all(args: argparse.Namespace, folder: Path) -> list[cases.Result]:
    """Run every case and write the results after each, so that an end in between loses none."""
    began = time.monotonic()
    if (folder / 'results.jsonl').exists() and not args.resume:
        fail(f'{folder} has the results of an earlier call: --resume goes on with them, another folder begins anew')
    done = known(folder / 'results.jsonl', args.resume)
    todo, machine = chosen(args), make(args, folder)
    counted = f'after the first {WARM_UP}' if args.steps > WARM_UP else 'of all'
    title = (
        f'{machine["device"]}, torch {machine["torch"]}: {args.batch} rows in a step, {args.steps} steps, '
        f'speed as the median {counted}.'
    )
    print(title, flush=True)
    places = {case: number for number, case in enumerate(todo)}
    results = list(done.values())
    write(folder, title, machine, results)
    for case in (case for case in todo if case not in done):
        if args.minutes is not None and time.monotonic() - began > 60 * args.minutes:
            result = cases.Result(case, problem=cases.NO_TIME)
        else:
            python = runs.python_of(case.contender, args.python)
            result = runs.run(case, folder, args.timeout, python, args.cold)
        print(f'{case.name}: {result.problem or f"{result.speed:,.0f} tokens/s"} ({result.seconds:.0f} s)', flush=True)
        results = sorted([*results, result], key=lambda one: places.get(one.case, -1))
        write(folder, title, machine, results)
    return results


def main(given: list[str] | None = None) -> None:
    """Run what the command line asks for and print the table."""
    args = arguments(given)
    folder = made(args.folder)
    try:
        results = run_all(args, folder)
    except KeyboardInterrupt:
        print(f'interrupted; what is done is in {folder}, and --resume goes on')
        sys.exit(INTERRUPTED)
    print('\n' + table(results), end='')
    excused = ('', cases.NO_MEMORY, cases.NO_TIME)
    sys.exit(1 if any(r.problem not in excused for r in results if r.case.contender in cases.OURS) else 0)


if __name__ == '__main__':
    main()
