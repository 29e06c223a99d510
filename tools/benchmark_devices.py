#!/usr/bin/env python
"""Compare speed, memory and losses on one and on several devices of a host, for LoRA, QLoRA and full fine-tuning.

    python tools/benchmark_devices.py FOLDER                           an 8B-shaped random model on 1 and 2 GPUs
    python tools/benchmark_devices.py FOLDER --cases full:fsdp2        one case
    python tools/benchmark_devices.py FOLDER --model tiny --length 32  a tiny model, also on CPUs
    python tools/benchmark_devices.py FOLDER --model 70b --layers 2 4 --devices 2 --batch 1
                                                       memory per layer of 70B, for xtune/planning/sharding.py

Each run is a separate `xtune train` on sequences of random token ids, all trained, with full activation checkpointing.
The sequences of an optimizer step are the same on any number of devices (fewer devices accumulate more gradients), so
that losses can be compared. Full fine-tuning of 8B does not fit on one GPU (16 bytes per parameter). `full` is
therefore compared with fewer layers (--single-device-layers), and runs with all layers only on the largest number of
devices.

Prints a table, with one row per run; peak memory is that of the first device. Writes FOLDER/benchmark.md and
FOLDER/benchmark.json. Exits with 1 if a run failed.
"""

import argparse
import json
import sys
from pathlib import Path

from common.benchmark_configs import WARMUP_STEPS
from common.subprocesses import writable_folder
from common.synthetic_inputs import make_in_subprocess
from device_benchmark import make_inputs, run_case
from device_benchmark.report import comparison, results_table

from xtune.config.strategies import strategy_parts

CASES = ['lora:ddp', 'qlora:fsdp2', 'full:zero3', 'full:fsdp2']


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='folder for models, runs and results')
    parser.add_argument('--devices', type=int, nargs='+', default=[1, 2], help='numbers of devices (default: 1 2)')
    parser.add_argument('--cases', nargs='+', default=CASES, help=f'METHOD:STRATEGY (default: {" ".join(CASES)})')
    parser.add_argument('--steps', type=int, default=20, help='optimizer steps per run (default: 20)')
    parser.add_argument('--batch', type=int, default=4, help='sequences per micro-batch (default: 4)')
    parser.add_argument('--length', type=int, default=2048, help='tokens per sequence (default: 2048)')
    parser.add_argument(
        '--single-device-layers', type=int, help='layers of full runs on one device (default: as many as fit)'
    )
    parser.add_argument('--timeout', type=float, default=900, help='time limit of a run in seconds (default: 900)')
    parser.add_argument('--model', choices=list(make_inputs.SHAPES), default='8b', help='model shape (default: 8b)')
    parser.add_argument('--layers', type=int, nargs='+', help='numbers of layers (default: that of the shape)')
    args = parser.parse_args(argv)
    if any(max(args.devices) % count for count in args.devices):
        parser.error(f'--devices {args.devices}: the largest must be a multiple of the others')
    for method, _, strategy in (case.partition(':') for case in args.cases):
        if method not in ('lora', 'qlora', 'full') or strategy not in strategy_parts():
            parser.error(f'--cases {method}:{strategy}: give METHOD:STRATEGY, with lora, qlora or full as the method')
    return args


def make_models_and_rows(args: argparse.Namespace, folder: Path) -> dict:
    """Write models and rows in a separate process; return its machine.json."""
    max_devices = max(args.devices)
    settings = dict(folder=str(folder), model=args.model, layers=args.layers)
    settings['single_device_layers'] = args.single_device_layers
    settings |= dict(
        rows=args.steps * args.batch * max_devices, devices=max_devices, batch=args.batch, length=args.length
    )
    return make_in_subprocess(make_inputs.__name__, settings, folder)


def main(argv: list[str] | None = None) -> None:
    """Run every case and write the results after each, so that an interruption loses none."""
    args = parse_arguments(argv)
    folder = writable_folder(args.folder)
    machine = make_models_and_rows(args, folder)
    settings = dict(steps=args.steps, batch=args.batch, length=args.length, max_devices=max(args.devices))
    title = (
        f'{machine["device"]}, torch {machine["torch"]}: micro-batches of {args.batch} x {args.length} tokens, '
        f'{args.steps} steps, speed is the median of the steps after the first {WARMUP_STEPS}.'
    )
    print(title)
    results = []
    # Pairs: layers of all runs, layers of full runs on one device.
    depths = [(layers, layers) for layers in args.layers or ()] or [
        (machine['layers'], machine['single_device_layers'])
    ]
    for case in [case for depth in depths for case in run_case.make_cases(args.cases, args.devices, *depth)]:
        result = run_case.run(case, folder, args.timeout, **settings)
        results.append(result)
        print(f'{case.name}: {result.problem or f"{result.speed:,.0f} tokens/s"} ({result.seconds:.0f} s)', flush=True)
        (folder / 'benchmark.md').write_text(f'{title}\n\n{results_table(results)}', encoding='utf-8')
        report = dict(machine=machine, settings=settings, runs=[comparison(result, results) for result in results])
        (folder / 'benchmark.json').write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    print('\n' + results_table(results), end='')
    sys.exit(1 if any(result.problem for result in results) else 0)


if __name__ == '__main__':
    main()
