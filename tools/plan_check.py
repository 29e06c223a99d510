#!/usr/bin/env python
"""Compare the memory and speed estimates of `xtune plan` with runs of `xtune train` on random models.

    python tools/plan_check.py FOLDER               eight runs with models of about 1 B parameters
    python tools/plan_check.py FOLDER --cases 0 4   two of these runs
    python tools/plan_check.py FOLDER --tiny        tiny models, also on a CPU; limits are not checked

Prints a table, with one row per run: the peak in GiB, planned (measured with partial models on this GPU) and counted
(on fake tensors, as for other GPUs), the measured peak, and their ratios; then tokens/s, planned and measured. A plan
or a run that fails or takes too long is a row with its reason.

Exits with 1 if there is such a row, if a planned peak is missing or differs by more than 5 %, a counted peak by more
than 10 %, or a speed is missing or differs by more than 15 %. Compiled layers without activation checkpointing are
counted as not compiled: their counted peak may be up to 40 % too high. Writes FOLDER/results.json.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from pathlib import Path

from common.markdown_table import markdown_table
from common.subprocesses import (
    INTERRUPTED,
    exit_with_error,
    failure_reason,
    read_json_lines,
    run_with_timeout,
    subprocess_env,
    writable_folder,
)
from common.synthetic_inputs import gpu_problem, write_random_model
from plan_check_cases import CASES, MODEL_1B, TINY, Case, config, model_folder, select_cases

from xtune.utils.atomic import write_text

WARMUP_STEPS = 3  # excluded from the speed
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
    """A plan or a run failed; the message is the reason."""


def run_xtune(run_folder: Path, folder: Path, timeout: float, *arguments: str) -> str:
    """Run an xtune command and return its output.

    Raises:
        FailedError: The command failed, or took too long.
    """
    command, stdout, log = arguments[0], run_folder / f'{arguments[0]}.txt', run_folder / f'{arguments[0]}.log'
    code = run_with_timeout(
        [sys.executable, '-m', 'xtune', *arguments], log, subprocess_env(folder), timeout, stdout=stdout
    )
    output = stdout.read_text(encoding='utf-8')
    # `plan` exits with 2 if the run does not fit on this GPU, or without output if planning failed. `train` is
    # interrupted by the hook StopWithoutCheckpoint.
    if code not in ((0, 2) if command == 'plan' else (0, INTERRUPTED)) or not output:
        raise FailedError(f'xtune {command}: {failure_reason(code, log)}')
    return output


def compare(case: Case, folder: Path, timeout: float, tiny: bool) -> dict:
    """Plan and run a case; return GiB and tokens/s of both, or None where they are unknown.

    Raises:
        FailedError: The plan or the run failed, or took too long.
    """
    run_folder = folder / case.name.replace(' ', '_')
    run_folder.mkdir(parents=True, exist_ok=True)
    config_file = run_folder / 'run.py'
    config_file.write_text(config(case, folder), encoding='utf-8')
    plan = json.loads(run_xtune(run_folder, folder, timeout, 'plan', str(config_file), '--json', '--memory', '80'))
    metrics = run_folder / 'run' / 'metrics.jsonl'
    metrics.unlink(missing_ok=True)
    run_xtune(run_folder, folder, timeout, 'train', str(config_file), '--work-dir', str(run_folder / 'run'))
    rows = [row for row in read_json_lines(metrics) if 'loss' in row]
    if len(rows) <= WARMUP_STEPS:
        raise FailedError(f'{metrics} has {len(rows)} steps, but the first {WARMUP_STEPS} are excluded')
    memory, on_gpu = plan['memory'], plan['gpu'] is not None
    return dict(
        name=case.name,
        check_limits=on_gpu and not tiny,
        upper_bound=case.compile and plan['checkpointed_layers'] < plan['layers'],
        planned=memory['peak'] / 2**30 if plan['measured'] else None,
        counted=memory['counted_peak'] / 2**30,
        peak=max(row['memory_gib'] for row in rows) if on_gpu else None,
        planned_speed=plan['tokens_per_second'],
        speed=statistics.median(row['tokens_per_second'] for row in rows[WARMUP_STEPS:]),
    )


def outcome(case: Case, folder: Path, timeout: float, tiny: bool) -> dict:
    """Return the result of a case, or its `problem`, so that the remaining cases still run."""
    try:
        return compare(case, folder, timeout, tiny)
    except FailedError as error:
        return dict(name=case.name, problem=str(error))


def row(result: dict) -> list[str]:
    """Return the cells of a row of the table."""
    if 'problem' in result:
        return [result['name'], result['problem']]

    def number(name: str, form: str) -> str:
        return '' if result[name] is None else format(result[name], form)

    ratios = [f'{result[a] / result[b]:.3f}' if result[a] and result[b] else '' for a, b, *_ in PAIRS]
    peaks = [number(name, '.2f') for name in ('planned', 'counted', 'peak')]
    speeds = [number(name, ',.0f') for name in ('planned_speed', 'speed')]
    return [result['name'], *peaks, *ratios[:2], *speeds, ratios[2]]


def is_wrong(result: dict) -> bool:
    """Return whether a run failed, or an estimate whose limits are checked is missing or exceeds them."""
    if 'problem' in result or not result['check_limits']:
        return 'problem' in result
    for estimate, measurement, low, high in PAIRS:
        if estimate == 'counted' and result['upper_bound']:
            high = UPPER_BOUND
        known = result[estimate] and result[measurement]
        if not known or not low <= result[estimate] / result[measurement] <= high:
            return True
    return False


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='folder for models, rows and results')
    parser.add_argument('--tiny', action='store_true', help='use tiny models, for machines without a GPU')
    parser.add_argument(
        '--cases', type=int, nargs='+', metavar='N', help='run only these cases, numbered from 0 (default: all)'
    )
    parser.add_argument(
        '--timeout', type=float, default=600, help='time limit of a plan or a run in seconds (default: 600)'
    )
    args = parser.parse_args(argv)
    unknown = [number for number in args.cases or () if not 0 <= number < len(CASES)]
    if unknown:
        parser.error(f'--cases {unknown[0]}: give numbers from 0 to {len(CASES) - 1}')
    return args


def make_models(cases: list[Case], folder: Path, tiny: bool) -> None:
    """Write the models of `cases` in separate processes, which release the GPU memory when they end."""
    for vocabulary, case in {case.vocabulary: case for case in cases}.items():
        shape = (TINY if tiny else MODEL_1B) | dict(vocab_size=vocabulary * 1000)
        process = multiprocessing.get_context('spawn').Process(
            target=write_random_model, args=(model_folder(case, folder), shape)
        )
        process.start()
        process.join()
        if process.exitcode:
            exit_with_error(f'writing the model with {vocabulary},000 tokens failed; see above')


def main(argv: list[str] | None = None) -> None:
    """Write the models, then plan and run each case."""
    import torch

    args = parse_arguments(argv)
    problem = gpu_problem(torch.cuda.device_count(), 1, args.tiny, '--tiny')
    if problem:
        exit_with_error(problem)
    folder, cases = writable_folder(args.folder), select_cases(args.cases, args.tiny)
    make_models(cases, folder, args.tiny)
    results = []
    for case in cases:
        results.append(outcome(case, folder, args.timeout, args.tiny))
        print(markdown_table(COLUMNS, [row(results[-1])]).splitlines()[-1], flush=True)
        write_text(folder / 'results.json', json.dumps(results, indent=1) + '\n')
    print('\n' + markdown_table(COLUMNS, [row(result) for result in results]), end='')
    sys.exit(int(any(map(is_wrong, results))))


if __name__ == '__main__':
    main()
