"""Runs in two real processes that are started once for many: importing torch and transformers takes longer than a run.

`run_pair` starts this file as a script, twice; each process then calls what the command `xtune train` calls.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

HOST = '127.0.0.1'


def case(config, resume=False, only_load=False, **options):
    """Return one run: its config, the checkpoint it goes on from, and options of the config.

    With `only_load` it ends when the model is in its place.
    """
    return dict(config=str(config), resume=str(resume) if resume else False, only_load=only_load, options=options)


def run_pair(folder: Path, cases: list[dict], timeout: float = 240, **environment: str) -> list[list[dict]]:
    """Run `cases` one after another in two processes; return what each process reports of each case, by rank.

    A report has `error` (of a run that a user must mend, or None) and `grown`, the bytes by which the process was
    larger at its largest than before the run.
    """
    folder.mkdir(exist_ok=True)
    (folder / 'cases.json').write_text(json.dumps([dict(c, port=_free_port()) for c in cases]))
    env = dict(
        os.environ,
        HF_HUB_OFFLINE='1',
        OMP_NUM_THREADS='1',
        XTUNE_CACHE=str(folder / 'cache'),
        WORLD_SIZE='2',
        MASTER_ADDR=HOST,
        MASTER_PORT=str(_free_port()),
        **environment,
    )
    logs = [(folder / f'rank_{rank}.log').open('w+') for rank in range(2)]
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env | dict(RANK=str(rank), LOCAL_RANK=str(rank)),
        )
        for rank, log in enumerate(logs)
    ]
    deadline = time.monotonic() + timeout
    while any(p.poll() is None for p in running) and not any(p.poll() for p in running):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    ended = [p.poll() for p in running]
    for process in running:
        process.kill()
        process.wait()
    texts = []
    for log in logs:
        log.seek(0)
        texts.append(log.read()[-3000:])
        log.close()
    assert ended == [0, 0], f'exit codes {ended}\n' + '\n'.join(texts)
    return [json.loads((folder / f'reports_{rank}.json').read_text()) for rank in range(2)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _work(folder: Path) -> None:
    from worker import deepspeed_without_compiler

    from xtune.config.run_config import RunConfig
    from xtune.engine.train import train
    from xtune.errors import XtuneError
    from xtune.parallel.env import World

    if importlib.util.find_spec('deepspeed') is not None:
        deepspeed_without_compiler()
    rank, reports = int(os.environ['RANK']), []
    for number, one in enumerate(json.loads((folder / 'cases.json').read_text())):
        print(f'--- {one}', flush=True)
        config, world = Path(one['config']), World(rank, 2, rank, HOST, one['port'], number)
        before, error = _start_measuring(), None
        try:
            if one['only_load']:
                _load(config, one['options'], world)
            else:
                train(RunConfig.read(config, one['options']), one['resume'], world)
        except XtuneError as refused:
            error = str(refused)
        reports.append(dict(error=error, grown=_status('VmHWM') - before))
    (folder / f'reports_{rank}.json').write_text(json.dumps(reports))


def _load(config: Path, options: dict, world) -> None:

    import torch

    from xtune.config.load import load
    from xtune.config.wire import wire
    from xtune.engine.model_builder import SpecModelBuilder
    from xtune.engine.strategies import build_strategy
    from xtune.engine.zero_config import zero_config
    from xtune.parallel.rendezvous import Rendezvous

    cpu, rendezvous = torch.device('cpu'), Rendezvous(world)
    with rendezvous.group(cpu, timeout=120):
        job = wire(load(config, options), config.stem)
        strategy = build_strategy(
            job.strategy,
            world,
            rendezvous,
            cpu,
            lambda dtype: zero_config(job.strategy, job.schedule, job.lora is not None, world.size, dtype),
        )
        strategy.place(SpecModelBuilder(job.model, cpu, lambda llm, dtype: None, 1, False))


def _start_measuring() -> int:
    """Let the peak of this process start at its present size, and return that in bytes."""
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def _status(name: str) -> int:
    [line] = [line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


if __name__ == '__main__':
    _work(Path(sys.argv[1]))
