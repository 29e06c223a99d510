#!/usr/bin/env python
"""Compare the estimates of `xtune plan` with runs of `xtune train`: memory and speed of random models on one GPU.

    python tools/plan_check.py FOLDER               eight runs with models of about 1 B parameters
    python tools/plan_check.py FOLDER --cases 0 4   two of them
    python tools/plan_check.py FOLDER --tiny        tiny models: needs no GPU, and no figure is judged

`planned` is the peak in GiB measured with partial models on this GPU. `counted` is the peak counted on fake tensors, as
for other GPUs. The table shows their ratios to the measured peak. A plan or a run that fails or takes too long is a row
with its reason. The exit code is 1 if there is such a row, if a planned peak is missing or more than 5 % off, a counted
one more than 10 %, or a speed missing or more than 15 %. Compiled layers without activation checkpointing are counted
as not compiled: their counted peak may be up to 40 % too high. Writes FOLDER/results.json.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from pathlib import Path

from common.material import make_model, refusal
from common.process import INTERRUPTED, environment, fail, in_time, json_lines, made, why
from common.tables import markdown
from plans.cases import CASES, TINY, WIDE, Case, chosen, config, model_of

from xtune.utils.atomic import write_text

WARM_UP = 3
# Estimate, measurement, and the limits of their ratio.
PAIRS = [('planned', 'peak', 0.95, 1.05), ('counted', 'peak', 0.9, 1.1), ('planned_speed', 'speed', 0.85, 1.15)]
UPPER_BOUND = 1.4  # limit of the ratio for a counted peak that is an upper bound
COLUMNS = [
    'case',
    'planned GiB',
    'counted GiB',
    'measured GiB',
    'planned / measured',
    'counted / measured',
    'planned tokens/s',
    'measured tokens/s',
    'planned / measured',
]


class FailedError(Exception):
    """The reason why a plan or a run has no figures."""


def call(place: Path, folder: Path, timeout: float, *arguments: str) -> str:
    """Run an xtune command and return its output.

    Raises:
        FailedError: It failed, or took too long.
    """
    command, out, log = arguments[0], place / f'{arguments[0]}.txt', place / f'{arguments[0]}.log'
    code = in_time([sys.executable, '-m', 'xtune', *arguments], log, environment(folder), timeout, output=out)
    output = out.read_text(encoding='utf-8')
    # 2: the run does not fit this GPU; or planning failed, without output. A run is interrupted by its hook.
    if code not in ((0, 2) if command == 'plan' else (0, INTERRUPTED)) or not output:
        raise FailedError(f'xtune {command}: {why(code, log)}')
    return output


def compare(case: Case, folder: Path, timeout: float, tiny: bool) -> dict:
    """Plan a run, do it, and return the figures of both: GiB and tokens/s; None: not known.

    Raises:
        FailedError: One of them failed, or took too long.
    """
    place = folder / case.name.replace(' ', '_')
    place.mkdir(parents=True, exist_ok=True)
    path = place / 'run.py'
    path.write_text(config(case, folder), encoding='utf-8')
    plan = json.loads(call(place, folder, timeout, 'plan', str(path), '--json', '--memory', '80'))
    metrics = place / 'run' / 'metrics.jsonl'
    metrics.unlink(missing_ok=True)
    call(place, folder, timeout, 'train', str(path), '--work-dir', str(place / 'run'))
    rows = [row for row in json_lines(metrics) if 'loss' in row]
    if len(rows) <= WARM_UP:
        raise FailedError(f'{metrics} has {len(rows)} steps, of which the first {WARM_UP} do not count')
    memory, on_gpu = plan['memory'], plan['gpu'] is not None
    return dict(
        name=case.name,
        judged=on_gpu and not tiny,
        upper_bound=case.compile and plan['recomputed_layers'] < plan['layers'],
        planned=memory['peak'] / 2**30 if plan['measured'] else None,
        counted=memory['counted_peak'] / 2**30,
        peak=max(row['memory_gib'] for row in rows) if on_gpu else None,
        planned_speed=plan['tokens_per_second'],
        speed=statistics.median(row['tokens_per_second'] for row in rows[WARM_UP:]),
    )


def outcome(case: Case, folder: Path, timeout: float, tiny: bool) -> dict:
    """Return the figures of a case, or its `problem`, so that the remaining cases still run."""
    try:
        return compare(case, folder, timeout, tiny)
    except FailedError as error:
        return dict(name=case.name, problem=str(error))


def row(result: dict) -> list[str]:
    """Return a row of the table."""
    if 'problem' in result:
        return [result['name'], result['problem']]

    def number(name: str, form: str) -> str:
        return '' if result[name] is None else format(result[name], form)

    ratios = [f'{result[a] / result[b]:.3f}' if result[a] and result[b] else '' for a, b, *_ in PAIRS]
    peaks = [number(name, '.2f') for name in ('planned', 'counted', 'peak')]
    speeds = [number(name, ',.0f') for name in ('planned_speed', 'speed')]
    return [result['name'], *peaks, *ratios[:2], *speeds, ratios[2]]


def is_wrong(result: dict) -> bool:
    """Return whether a run failed, or, if it is judged, an estimate is missing or outside of its limits."""
    if 'problem' in result or not result['judged']:
        return 'problem' in result
    for estimate, measurement, low, high in PAIRS:
        if estimate == 'counted' and result['upper_bound']:
            high = UPPER_BOUND
        known = result[estimate] and result[measurement]
        if not known or not low <= result[estimate] / result[measurement] <= high:
            return True
    return False


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='where models, rows and results are written')
    parser.add_argument('--tiny', action='store_true', help='tiny models, for machines without a GPU')
    parser.add_argument('--cases', type=int, nargs='+', metavar='N', help='numbers of the runs, from 0 (default: all)')
    parser.add_argument('--timeout', type=float, default=600, help='seconds of a plan or a run (default: 600)')
    args = parser.parse_args(argv)
    wrong = [number for number in args.cases or () if not 0 <= number < len(CASES)]
    if wrong:
        parser.error(f'--cases {wrong[0]}: there are runs 0 to {len(CASES) - 1}')
    return args


def make_models(cases: list[Case], folder: Path, tiny: bool) -> None:
    """Make the models of `cases` in separate processes, so that the memory of the GPU is free afterwards."""
    for vocabulary, case in {case.vocabulary: case for case in cases}.items():
        shape = (TINY if tiny else WIDE) | dict(vocab_size=vocabulary * 1000)
        maker = multiprocessing.get_context('spawn').Process(target=make_model, args=(model_of(case, folder), shape))
        maker.start()
        maker.join()
        if maker.exitcode:
            fail(f'the model with {vocabulary},000 tokens could not be made; see above')


def main(argv: list[str] | None = None) -> None:
    """Make the models, then plan and run each case."""
    import torch

    args = arguments(argv)
    refused = refusal(torch.cuda.device_count(), 1, args.tiny, '--tiny')
    if refused:
        fail(refused)
    folder, cases = made(args.folder), chosen(args.cases, args.tiny)
    make_models(cases, folder, args.tiny)
    results = []
    for case in cases:
        results.append(outcome(case, folder, args.timeout, args.tiny))
        print(markdown(COLUMNS, [row(results[-1])]).splitlines()[-1], flush=True)
        write_text(folder / 'results.json', json.dumps(results, indent=1) + '\n')
    print('\n' + markdown(COLUMNS, [row(result) for result in results]), end='')
    sys.exit(int(any(map(is_wrong, results))))


if __name__ == '__main__':
    main()
