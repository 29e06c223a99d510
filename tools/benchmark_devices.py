#!/usr/bin/env python
"""Speed, memory and losses on one device and on several of one host, for LoRA, QLoRA and full fine-tuning.

    python tools/benchmark_devices.py FOLDER                           an 8B-shaped random model on 1 and 2 GPUs
    python tools/benchmark_devices.py FOLDER --cases full:fsdp2        one case only
    python tools/benchmark_devices.py FOLDER --model tiny --length 32  a tiny model, on CPUs too
    python tools/benchmark_devices.py FOLDER --model 70b --layers 2 4 --devices 2 --batch 1
                                                       what a layer of 70B needs, for xtune/planning/sharding.py

Every run is `xtune train` of its own, on rows of random token ids, all trained, with the activations of every layer
recomputed. The sequences of an optimizer step are the same on any number of devices, so that losses can be compared:
fewer devices accumulate more. All weights of 8B do not fit one GPU (16 bytes a parameter); `full` is compared at a
depth that does (--one-layers) and runs in whole depth on the largest number of devices. Peak memory is that of the
first device. Writes FOLDER/benchmark.md and FOLDER/benchmark.json; exits with 1 if a run failed.
"""

import argparse
import json
import sys
from pathlib import Path

from common.configs import WARM_UP
from common.material import made_apart
from common.process import made
from devices import material, runs
from devices.report import compared, table

from xtune.config.strategies import strategy_parts

CASES = ['lora:ddp', 'qlora:fsdp2', 'full:zero3', 'full:fsdp2']


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='gets models, runs and results')
    parser.add_argument('--devices', type=int, nargs='+', default=[1, 2], help='devices of a run (default: 1 2)')
    parser.add_argument('--cases', nargs='+', default=CASES, help=f'METHOD:STRATEGY (default: {" ".join(CASES)})')
    parser.add_argument('--steps', type=int, default=20, help='optimizer steps of a run (default: 20)')
    parser.add_argument('--batch', type=int, default=4, help='sequences of a device in a forward pass (default: 4)')
    parser.add_argument('--length', type=int, default=2048, help='tokens of a sequence (default: 2048)')
    parser.add_argument('--one-layers', type=int, help='depth of full runs on one device (default: what fits)')
    parser.add_argument('--timeout', type=float, default=900, help='seconds of a run (default: 900)')
    parser.add_argument('--model', choices=list(material.SHAPES), default='8b', help='its shape (default: 8b)')
    parser.add_argument('--layers', type=int, nargs='+', help='depths of every run (default: that of the shape)')
    args = parser.parse_args(given)
    if any(max(args.devices) % count for count in args.devices):
        parser.error(f'--devices {args.devices}: the largest must be a multiple of each')
    for method, _, strategy in (case.partition(':') for case in args.cases):
        if method not in ('lora', 'qlora', 'full') or strategy not in strategy_parts():
            parser.error(f'--cases: {method}:{strategy} is not lora, qlora or full, a colon, and a strategy')
    return args


def make(args: argparse.Namespace, folder: Path) -> dict:
    """Make models and rows in a process of its own; return what the machine is."""
    most = max(args.devices)
    wanted = dict(folder=str(folder), model=args.model, layers=args.layers, one_layers=args.one_layers)
    wanted |= dict(rows=args.steps * args.batch * most, devices=most, batch=args.batch, length=args.length)
    return made_apart(material.__name__, wanted, folder)


def main(given: list[str] | None = None) -> None:
    """Run every case and write the results after each, so that an end in between loses none."""
    args = arguments(given)
    folder = made(args.folder)
    machine = make(args, folder)
    settings = dict(steps=args.steps, batch=args.batch, length=args.length, most=max(args.devices))
    title = (
        f'{machine["device"]}, torch {machine["torch"]}: {args.batch} x {args.length} tokens in a forward pass, '
        f'{args.steps} steps, speed as the median after the first {WARM_UP}.'
    )
    print(title)
    results = []
    depths = [(depth, depth) for depth in args.layers or ()] or [(machine['layers'], machine['one_layers'])]
    for case in [one for depth in depths for one in runs.cases(args.cases, args.devices, *depth)]:
        result = runs.run(case, folder, args.timeout, **settings)
        results.append(result)
        print(f'{case.name}: {result.problem or f"{result.speed:,.0f} tokens/s"} ({result.seconds:.0f} s)', flush=True)
        (folder / 'benchmark.md').write_text(f'{title}\n\n{table(results)}', encoding='utf-8')
        found = dict(machine=machine, settings=settings, runs=[compared(one, results) for one in results])
        (folder / 'benchmark.json').write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    print('\n' + table(results), end='')
    sys.exit(1 if any(result.problem for result in results) else 0)


if __name__ == '__main__':
    main()
