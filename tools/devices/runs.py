"""Which runs there are, each as a process of its own through `xtune train`, and what their metrics say."""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common.configs import WARM_UP, flat, shared_options
from common.process import INTERRUPTED, environment, in_time, json_lines, why


@dataclass(frozen=True)
class Case:
    """One method under one strategy, on a number of devices, with a depth of the model."""

    method: str
    strategy: str
    devices: int
    layers: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f'{self.method}_{self.strategy}_{self.devices}x_{self.layers}l'


@dataclass(frozen=True)
class Result:
    """What came out: tokens/s of one device, peak GiB of the first one, figures by step; or what went wrong."""

    case: Case
    speed: float = 0.0
    memory: float = 0.0
    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    seconds: float = 0.0
    problem: str = ''


def cases(pairs: list[str], devices: list[int], layers: int, one_layers: int) -> list[Case]:
    """Return the runs of `pairs` ('full:zero3') on each number of `devices`.

    On one device a strategy spreads nothing, so that a method has one run there. All weights of the whole depth do not
    fit one device: `full` is compared at `one_layers`, and runs whole on the largest number only.
    """
    found: dict[Case, None] = {}
    for pair in pairs:
        method, _, strategy = pair.partition(':')
        depth = one_layers if method == 'full' else layers
        for count in sorted(devices):
            found[Case(method, 'one_device' if count == 1 else strategy, count, depth)] = None
        if depth != layers and max(devices) > 1:
            found[Case(method, strategy, max(devices), layers)] = None
    return list(found)


def config(case: Case, folder: Path, steps: int, batch: int, length: int, most: int) -> str:
    """Return the config of a run; the sequences of an optimizer step are the same on any number of devices."""
    options = shared_options(folder / f'model_{case.layers}', folder / 'rows.jsonl', length, batch, steps)
    options |= {'activation_checkpointing': 'all', 'schedule.gradient_accumulation_steps': most // case.devices}
    return flat(case.method, options)


def run(case: Case, folder: Path, timeout: float, **settings: int) -> Result:
    """Run `case` in `folder` for at most `timeout` seconds; what fails is told in the result."""
    place = folder / case.name
    place.mkdir(parents=True, exist_ok=True)
    path = place / 'run.py'
    path.write_text(config(case, folder, **settings), encoding='utf-8')
    command = [sys.executable, '-m', 'xtune', 'train', str(path), '--strategy', case.strategy]
    around = environment(folder)
    if case.devices > 1:
        around['NPROC_PER_NODE'] = str(case.devices)
    (place / 'run').mkdir(exist_ok=True)
    (place / 'run' / 'metrics.jsonl').unlink(missing_ok=True)
    began = time.monotonic()
    code = in_time([*command, '--work-dir', str(place / 'run')], place / 'log.txt', around, timeout)
    return read(case, place, code, time.monotonic() - began, settings['steps'])


def read(case: Case, place: Path, code: int | None, seconds: float, steps: int) -> Result:
    """Return what a run wrote; `code` is its exit code, None if it took too long."""
    rows = json_lines(place / 'run' / 'metrics.jsonl')
    if code != INTERRUPTED or len(rows) != steps:  # which is how its hook ends it
        return Result(case, seconds=seconds, problem=why(code, place / 'log.txt', len(rows)))
    counted = rows[WARM_UP:] or rows
    return Result(
        case,
        speed=statistics.median(row['tokens_per_second'] for row in counted) / case.devices,
        memory=max(row['memory_gib'] for row in rows[1:] or rows),  # the first one's peak is that of loading
        losses=tuple(row['loss'] for row in rows),
        norms=tuple(row['grad_norm'] for row in rows),
        seconds=seconds,
    )
