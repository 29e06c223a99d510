"""Runs many cases: `python worker.py CASES.json`. Libraries are imported once; each process of a case is a fork.

A case is dict(name, config, resume, size, port, seconds): `size` processes call `train` as `xtune train` does. Their
output goes to NAME_rank_N.log beside the cases. The exit code is 1 if a process failed; nothing is left running.
"""

import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from xtune.parallel.env import World, mute_other_ranks


def deepspeed_without_compiler() -> None:
    """Let DeepSpeed talk through gloo alone: its helper for CPUs is compiled first, which takes a minute."""
    import deepspeed

    deepspeed.ops.__compatible_ops__['deepspeed_shm_comm'] = False


def run(case: dict, rank: int, log: Path) -> None:
    """Train as `rank` of the case, in a process of its own, and end that process."""
    with log.open('w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        world = World(rank, case['size'], rank, '127.0.0.1', case['port'])
        mute_other_ranks(world)
        from xtune.config.run_config import RunConfig
        from xtune.engine.train import train

        code = train(RunConfig.read(Path(case['config'])), case.get('resume', False), world)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(path: Path) -> int:
    """Run the cases of `path` one after the other; return 1 at the first that fails."""
    for name in ('xtune.engine.train', 'transformers.models.llama.modeling_llama', 'deepspeed'):
        importlib.import_module(name)
    deepspeed_without_compiler()
    for case in json.loads(path.read_text(encoding='utf-8')):
        began, children = time.monotonic(), {}
        for rank in range(case['size']):
            pid = os.fork()
            if not pid:
                run(case, rank, path.with_name(f'{case["name"]}_rank_{rank}.log'))
            children[pid] = rank
        failed = False
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            failed |= children.pop(pid, None) is not None and status != 0
            if failed or time.monotonic() - began > case['seconds']:
                failed = True
                for child in children:
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.02)
        print(f'{case["name"]}: {time.monotonic() - began:.1f} s', flush=True)
        if failed:
            return 1
    return 0


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
