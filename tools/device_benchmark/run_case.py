"""The cases of the benchmark: run each with `xtune train` in a separate process, and read its metrics."""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common.benchmark_configs import WARMUP_STEPS, benchmark_options, config_text
from common.subprocesses import INTERRUPTED, failure_reason, read_json_lines, run_with_timeout, subprocess_env


@dataclass(frozen=True)
class Case:
    """A method with a strategy on `devices` devices, with a model of `layers` layers."""

    method: str
    strategy: str
    devices: int
    layers: int

    @property
    def name(self) -> str:
        """The name of the folder of the run."""
        return f'{self.method}_{self.strategy}_{self.devices}x_{self.layers}l'


@dataclass(frozen=True)
class Result:
    """The result of a run: tokens/s per device, peak GiB of the first device, values per step; or its `problem`."""

    case: Case
    speed: float = 0.0
    memory: float = 0.0
    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    seconds: float = 0.0
    problem: str = ''


def make_cases(pairs: list[str], devices: list[int], layers: int, single_device_layers: int) -> list[Case]:
    """Return the runs of `pairs` ('full:zero3') on each number of `devices`.

    On one device, strategies do not differ, so each method has one run there. Full fine-tuning of all layers does not
    fit on one device: `full` is compared with `single_device_layers`, and runs with all layers only on the largest
    number of devices.
    """
    cases: dict[Case, None] = {}
    for pair in pairs:
        method, _, strategy = pair.partition(':')
        depth = single_device_layers if method == 'full' else layers
        for count in sorted(devices):
            cases[Case(method, 'one_device' if count == 1 else strategy, count, depth)] = None
        if depth != layers and max(devices) > 1:
            cases[Case(method, strategy, max(devices), layers)] = None
    return list(cases)


def config(case: Case, folder: Path, steps: int, batch: int, length: int, max_devices: int) -> str:
    """Return the config of a run; the sequences of an optimizer step are the same on any number of devices."""
    options = benchmark_options(folder / f'model_{case.layers}', folder / 'rows.jsonl', length, batch, steps)
    options |= {'activation_checkpointing': 'all', 'schedule.gradient_accumulation_steps': max_devices // case.devices}
    return config_text(case.method, options)


def run(case: Case, folder: Path, timeout: float, **settings: int) -> Result:
    """Run `case` in `folder` for at most `timeout` seconds. A failure is the `problem` of the result."""
    run_folder = folder / case.name
    run_folder.mkdir(parents=True, exist_ok=True)
    config_file = run_folder / 'run.py'
    config_file.write_text(config(case, folder, **settings), encoding='utf-8')
    command = [sys.executable, '-m', 'xtune', 'train', str(config_file), '--strategy', case.strategy]
    env = subprocess_env(folder)
    if case.devices > 1:
        env['NPROC_PER_NODE'] = str(case.devices)
    (run_folder / 'run').mkdir(exist_ok=True)
    (run_folder / 'run' / 'metrics.jsonl').unlink(missing_ok=True)
    start = time.monotonic()
    code = run_with_timeout([*command, '--work-dir', str(run_folder / 'run')], run_folder / 'log.txt', env, timeout)
    return read_result(case, run_folder, code, time.monotonic() - start, settings['steps'])


def read_result(case: Case, run_folder: Path, code: int | None, seconds: float, steps: int) -> Result:
    """Return the result of a run; its exit code `code` is None after a timeout."""
    rows = read_json_lines(run_folder / 'run' / 'metrics.jsonl')
    if code != INTERRUPTED or len(rows) != steps:  # the hook StopWithoutCheckpoint interrupts it
        return Result(case, seconds=seconds, problem=failure_reason(code, run_folder / 'log.txt', len(rows)))
    measured = rows[WARMUP_STEPS:] or rows
    return Result(
        case,
        speed=statistics.median(row['tokens_per_second'] for row in measured) / case.devices,
        memory=max(row['memory_gib'] for row in rows[1:] or rows),  # the peak of the first step includes loading
        losses=tuple(row['loss'] for row in rows),
        norms=tuple(row['grad_norm'] for row in rows),
        seconds=seconds,
    )
