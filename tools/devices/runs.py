"""Which runs there are, each as a process of its own through `xtune train`, and what their metrics say."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parents[1]
# Steps at the start that the speed does not count.
WARM_UP = 5


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


def shared_options(model: Path, rows: Path, length: int, batch: int, steps: int) -> dict[str, Any]:
    """Return the options of a run of `steps` on whole rows of `length` that writes its figures and no checkpoint."""
    return {
        'base_model': str(model),
        'train_dataset': dict(path=str(rows), map_fn='tokenized'),
        'max_length': length,
        'pack': False,
        'schedule.batch_size': batch,
        'schedule.max_steps': steps,
        'schedule.lr_schedule': 'constant',
        'log': dict(every_steps=1, tensorboard=False, plot=False),
        'checkpoint': dict(every_steps=None, every_epochs=None),
        'chat_samples': None,
        'custom_imports': ['devices.stop'],
        'runner': dict(custom_hooks=[dict(type='xtune.StopUnsaved', steps=steps)]),
    }


def flat(method: str, options: dict[str, Any]) -> str:
    """Return a config of `method` with `options`; the adapter, if any, has rank 16 and no dropout."""
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    if method != 'full':
        options = options | {'lora.lora_dropout': 0.0, 'lora.r': 16}  # dropout differs between runs
    return flatten(find(f'smollm2_135m_{method}_selfcog_e2'), options)


def config(case: Case, folder: Path, steps: int, batch: int, length: int, most: int) -> str:
    """Return the config of a run; the sequences of an optimizer step are the same on any number of devices."""
    options = shared_options(folder / f'model_{case.layers}', folder / 'rows.jsonl', length, batch, steps)
    options |= {'checkpointing': 'all', 'schedule.accumulate': most // case.devices}
    return flat(case.method, options)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that finds xtune and these tools, with a cache in `folder`."""
    given = [os.path.abspath(path) for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path]
    paths = os.pathsep.join([str(TOOLS), str(TOOLS.parent), *given])
    return os.environ | dict(PYTHONPATH=paths, XTUNE_CACHE=str(folder / 'cache'))


def in_time(
    command: list[str], log: Path, environment: dict[str, str], timeout: float, current: Path | None = None
) -> int | None:
    """Run `command`, what it says to `log`; return its exit code, None if it took more than `timeout` seconds.

    Its current folder is `current`, by default that of this process.
    """
    with log.open('w', encoding='utf-8') as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, cwd=current, start_new_session=True
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def why(code: int | None, log: Path, steps: int | None = None) -> str:
    """Return why a process ended, after `steps` steps if that is known, with its last words."""
    last = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()[-1:]
    reason = 'took too long' if code is None else f'exit code {code}'
    after = '' if steps is None else f' after {steps} steps'
    return f'{reason}{after}; its last words: {next(iter(last), "nothing")[:200]}'


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
    metrics = place / 'run' / 'metrics.jsonl'
    text = metrics.read_text(encoding='utf-8') if metrics.exists() else ''
    rows = [json.loads(line) for line in text.splitlines()]
    if code != 130 or len(rows) != steps:  # 130: ended by its hook
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
