"""Runs of contenders, each as a process of its own, and what came out."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from common.configs import WARM_UP, flat, shared_options
from common.process import environment, in_time, why

from .cases import NO_MEMORY, OURS, Case, Result
from .shapes import targets

# What a log says, by whomever, of a process that ran out of memory.
SHORT = ('out of memory', 'outofmemory', 'does not fit into memory')


def installed(contender: str, python: str) -> bool:
    """Tell whether the interpreter `python` has what `contender` needs."""
    package = 'xtune' if contender in OURS else contender
    ask = f'import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)'
    return subprocess.run([python, '-c', ask], env=environment(Path())).returncode == 0


def config(case: Case, folder: Path, result: Path) -> str:
    """Return the config of a run of xtune, which notes its steps in `result`."""
    rows = folder / f'{case.model}_{case.length}.jsonl'
    options = shared_options(folder / case.model, rows, case.length, case.batch, case.steps)
    options |= {
        'activation_checkpointing': case.checkpointing,
        'schedule.gradient_accumulation_steps': 1,
        'optimizer.lr': 1e-4,
    }
    options['schedule.warmup_ratio'] = 0.0
    options['custom_imports'] = [*options['custom_imports'], 'peers.hook']
    ticks = dict(type='xtune.TickHook', path=str(result), steps=case.steps)
    options['runner'] = dict(custom_hooks=[ticks, *options['runner']['custom_hooks']])
    if case.method != 'full':
        options['lora.lora_alpha'] = 16
    return flat(case.method, options)


def command(case: Case, folder: Path, place: Path, python: str) -> list[str]:
    """Return the command of `case`, whose folder `place` gets what it needs."""
    result, path = place / 'result.json', place / 'run.py'
    if case.contender in OURS:
        path.write_text(config(case, folder, result), encoding='utf-8')
    if case.contender == 'xtune':
        start = [python, '-m', 'xtune', 'train', str(path), '--strategy', 'one_device']
        return [*start, '--work-dir', str(place / 'run')]
    work = asdict(case) | dict(
        config=str(path),
        folder=str(place / 'run'),
        result=str(result),
        rows=str(folder / f'{case.model}_{case.length}.jsonl'),
        targets=targets(case.model),
    )
    work['model'] = str(folder / case.model)
    module = 'peers.bare' if case.contender == 'bare' else f'peers.with_{case.contender}'
    return [python, '-m', module, json.dumps(work)]


def run(case: Case, folder: Path, timeout: float, python: str, cold: bool) -> Result:
    """Run `case` in `folder` for at most `timeout` seconds; what fails is told in the result.

    `cold`: nothing was compiled before.
    """
    place = folder / case.name
    shutil.rmtree(place, ignore_errors=True)
    (place / 'run').mkdir(parents=True)
    around = environment(folder) | dict(HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false')
    # Peers would else spread a model over all GPUs, or refuse to.
    around['CUDA_VISIBLE_DEVICES'] = os.environ.get('CUDA_VISIBLE_DEVICES', '0').partition(',')[0]
    if cold:
        around |= dict(TORCHINDUCTOR_CACHE_DIR=str(place / 'inductor'), TRITON_CACHE_DIR=str(place / 'triton'))
        around['XTUNE_CACHE'] = str(place / 'cache')
    given = command(case, folder, place, python)
    began = time.time()
    code = in_time(given, place / 'log.txt', around, timeout, place)
    return read(case, place, code, began, time.time() - began)


def read(case: Case, place: Path, code: int | None, began: float, seconds: float) -> Result:
    """Return what a process that `began` then has noted; `code` is its exit code, None if it took too long.

    What it does after its last step, such as clearing up, may fail.
    """
    path, log = place / 'result.json', (place / 'log.txt').read_text(encoding='utf-8', errors='replace')
    said = re.findall(r'checkpointing in (\d+ of \d+) layers|with (\d+ of \d+) layers checkpointed', log)
    recomputed = ''.join(said[-1]) if said and case.contender in OURS else ''
    if not path.exists():
        errors = '\n'.join(line for line in log.casefold().splitlines() if not line.startswith('note: '))
        short = any(sign in errors for sign in SHORT)
        problem = NO_MEMORY if short else why(code, place / 'log.txt')
        return Result(case, seconds=seconds, recomputed=recomputed, problem=problem)
    found = json.loads(path.read_text(encoding='utf-8'))
    ends = found['ends']
    times = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return Result(
        case,
        speed=case.batch * case.length / statistics.median(times[WARM_UP - 1 :] or times),
        memory=found['gib'],
        first_loss=found['losses'][0],
        last_loss=found['losses'][-1],
        first_step=ends[0] - began,
        seconds=seconds,
        recomputed=recomputed,
    )


def python_of(contender: str, others: dict[str, str]) -> str:
    """Return the interpreter of `contender`."""
    return others.get(contender, sys.executable)
