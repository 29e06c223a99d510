"""Run a case in a separate process and read its result."""

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

from common.benchmark_configs import WARMUP_STEPS, benchmark_options, config_text
from common.subprocesses import failure_reason, run_with_timeout, subprocess_env

from .cases import OUT_OF_MEMORY, XTUNE_BASED, Case, Result
from .model_shapes import target_modules

# Texts in the log of any contender that is out of memory, in lower case.
MEMORY_ERRORS = ('out of memory', 'outofmemory', 'does not fit into memory')


def is_installed(contender: str, python: str) -> bool:
    """Return whether the package of `contender` is installed for the interpreter `python`."""
    package = 'xtune' if contender in XTUNE_BASED else contender
    code = f'import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)'
    return subprocess.run([python, '-c', code], env=subprocess_env(Path())).returncode == 0


def config(case: Case, folder: Path, result: Path) -> str:
    """Return the text of the xtune config of a run; its hook writes the file `result`."""
    rows = folder / f'{case.model}_{case.length}.jsonl'
    options = benchmark_options(folder / case.model, rows, case.length, case.batch, case.steps)
    options |= {
        'activation_checkpointing': case.checkpointing,
        'schedule.gradient_accumulation_steps': 1,
        'optimizer.lr': 1e-4,
    }
    options['schedule.warmup_ratio'] = 0.0
    options['custom_imports'] = [*options['custom_imports'], 'peer_benchmark.timing_hook']
    timing_hook = dict(type='xtune.StepTimerHook', path=str(result), steps=case.steps)
    options['runner'] = dict(custom_hooks=[timing_hook, *options['runner']['custom_hooks']])
    if case.method != 'full':
        options['lora.lora_alpha'] = 16
    return config_text(case.method, options)


def command(case: Case, folder: Path, run_folder: Path, python: str) -> list[str]:
    """Return the command of `case`, after writing its config to `run_folder` if it needs one."""
    result, config_file = run_folder / 'result.json', run_folder / 'run.py'
    if case.contender in XTUNE_BASED:
        config_file.write_text(config(case, folder, result), encoding='utf-8')
    if case.contender == 'xtune':
        train = [python, '-m', 'xtune', 'train', str(config_file), '--strategy', 'one_device']
        return [*train, '--work-dir', str(run_folder / 'run')]
    work = asdict(case) | dict(
        config=str(config_file),
        folder=str(run_folder / 'run'),
        result=str(result),
        rows=str(folder / f'{case.model}_{case.length}.jsonl'),
        targets=target_modules(case.model),
    )
    work['model'] = str(folder / case.model)
    return [python, '-m', f'peer_benchmark.train_{case.contender}', json.dumps(work)]


def run(case: Case, folder: Path, timeout: float, python: str, cold: bool) -> Result:
    """Run `case` in `folder` for at most `timeout` seconds. A failure is the `problem` of the result.

    With `cold`, the caches of compiled code and of data are empty.
    """
    run_folder = folder / case.name
    shutil.rmtree(run_folder, ignore_errors=True)
    (run_folder / 'run').mkdir(parents=True)
    env = subprocess_env(folder) | dict(HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false')
    # Otherwise peers shard the model over all visible GPUs, or refuse to run.
    env['CUDA_VISIBLE_DEVICES'] = os.environ.get('CUDA_VISIBLE_DEVICES', '0').partition(',')[0]
    if cold:
        env |= dict(TORCHINDUCTOR_CACHE_DIR=str(run_folder / 'inductor'), TRITON_CACHE_DIR=str(run_folder / 'triton'))
        env['XTUNE_CACHE'] = str(run_folder / 'cache')
    arguments = command(case, folder, run_folder, python)
    start = time.time()
    code = run_with_timeout(arguments, run_folder / 'log.txt', env, timeout, cwd=run_folder)
    return read_result(case, run_folder, code, start, time.time() - start)


def read_result(case: Case, run_folder: Path, code: int | None, start: float, seconds: float) -> Result:
    """Return the result of a process that was started at `start`; its exit code `code` is None after a timeout.

    The exit code is ignored if all steps are recorded: failures after the last step do not matter.
    """
    path, log = run_folder / 'result.json', (run_folder / 'log.txt').read_text(encoding='utf-8', errors='replace')
    counts = re.findall(r'checkpointing in (\d+ of \d+) layers|with (\d+ of \d+) layers checkpointed', log)
    checkpointed = ''.join(counts[-1]) if counts and case.contender in XTUNE_BASED else ''
    if not path.exists():
        errors = '\n'.join(line for line in log.casefold().splitlines() if not line.startswith('note: '))
        out_of_memory = any(text in errors for text in MEMORY_ERRORS)
        problem = OUT_OF_MEMORY if out_of_memory else failure_reason(code, run_folder / 'log.txt')
        return Result(case, seconds=seconds, checkpointed=checkpointed, problem=problem)
    record = json.loads(path.read_text(encoding='utf-8'))
    ends = record['ends']
    times = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return Result(
        case,
        speed=case.batch * case.length / statistics.median(times[WARMUP_STEPS - 1 :] or times),
        memory=record['gib'],
        first_loss=record['losses'][0],
        last_loss=record['losses'][-1],
        first_step=ends[0] - start,
        seconds=seconds,
        checkpointed=checkpointed,
    )


def interpreter(contender: str, interpreters: dict[str, str]) -> str:
    """Return the Python interpreter of `contender`; the default is that of this process."""
    return interpreters.get(contender, sys.executable)
