"""`NPROC_PER_NODE=8 xtune train ...`: start the ranks of this host with torch's own launcher, and report how it
ends."""

import json
import logging
import os
import signal
import sys
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from ..errors import ConfigError
from ..utils.visible import visible
from .env import DEFAULT_PORT, LAST_PORT

# Environment variable of ranks whose errors the launcher prints.
LAUNCHED = 'XTUNE_LAUNCHED'
# In errors of a rank that lost its connection to another one, whose error is the cause.
AFTERMATH = ('Connection closed by peer', 'Connection reset by peer', 'Broken pipe', 'ncclRemoteError', 'lost contact')
# Seconds that ranks have to finish their step and save when the run is interrupted.
SHUTDOWN_SECONDS = 600


@dataclass(frozen=True)
class Launch:
    """How many ranks to start: `processes` on this host, which is host `node` of `nodes`."""

    processes: int
    nodes: int
    node: int
    address: str
    port: int

    def arguments(self) -> list[str]:
        """Return the arguments of torchrun."""
        arguments = [f'--nproc-per-node={self.processes}']
        if self.nodes == 1:
            return [*arguments, '--standalone']
        hosts = [f'--nnodes={self.nodes}', f'--node-rank={self.node}']
        return [*arguments, *hosts, f'--master-addr={self.address}', f'--master-port={self.port}']


def wanted(env: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the launch that NPROC_PER_NODE, NNODES, NODE_RANK, ADDR and PORT ask for; None: one rank, or a launcher
    has started this one.

    Raises:
        ConfigError: A value is not a number, out of range, or missing.
    """
    if 'RANK' in env and 'WORLD_SIZE' in env:
        return None
    processes, nodes = _number(env, 'NPROC_PER_NODE', 1, low=1), _number(env, 'NNODES', 1, low=1)
    if processes * nodes == 1:
        return None
    node = _number(env, 'NODE_RANK', 0 if nodes == 1 else None, low=0)
    if node >= nodes:
        raise ConfigError(f'NODE_RANK={node}, but NNODES={nodes}: the hosts are numbered from 0 to {nodes - 1}')
    address = env.get('ADDR') or env.get('MASTER_ADDR')
    if nodes > 1 and not address:
        raise ConfigError(f'NNODES={nodes} needs ADDR, the name or address of the host with NODE_RANK=0')
    name = 'PORT' if env.get('PORT') else 'MASTER_PORT'
    port = _number(env, name, DEFAULT_PORT, low=1, high=LAST_PORT)
    return Launch(processes, nodes, node, address or '127.0.0.1', port)


def run(launch: Launch, arguments: list[str]) -> int:
    """Run `xtune` with `arguments` on every rank of `launch`; return the exit code of the first one that failed."""
    import torch
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from ..utils.cpu_threads import allowed_cores

    if torch.cuda.is_available() and launch.processes > torch.cuda.device_count():
        raise ConfigError(f'NPROC_PER_NODE={launch.processes}, but this host has {torch.cuda.device_count()} GPUs')
    # torchrun would set one and print a warning; a rank of a CPU run needs its share of the cores.
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, allowed_cores() // launch.processes)))
    os.environ[LAUNCHED] = '1'
    # torch 2.11 ignores it, and always waits 30 s.
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', str(SHUTDOWN_SECONDS))
    for name in ('', '.elastic.agent.server.api', '.elastic.multiprocessing.errors'):
        logging.getLogger(f'torch.distributed{name}').setLevel(logging.CRITICAL)  # report_failures prints the failure
    parsed = torchrun.parse_args([*launch.arguments(), '-m', 'xtune', *arguments])
    try:
        torchrun.run(parsed)
    except ChildFailedError as error:
        return report_failures(error.failures)
    except (SignalException, KeyboardInterrupt):
        return 130
    except json.JSONDecodeError:  # of the error file of a rank
        print(
            f'error: a rank failed and could not write its error file into {tempfile.gettempdir()}: is the disk full? '
            'Free some space (or set TMPDIR), and resume from the latest checkpoint with --resume',
            file=sys.stderr,
        )
        return 1
    return 0


def prints_error(text: str, env: Mapping[str, str] = os.environ) -> bool:
    """Return whether this rank prints the error `text`, which other ranks may have too.

    Our launcher prints the errors of the ranks that it started. Under torchrun, the first rank that asks does.
    """
    if LAUNCHED in env:
        return False
    if env.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return True
    import torch.distributed as dist

    try:
        address = env['MASTER_ADDR'], int(env['MASTER_PORT'])
        store = dist.TCPStore(*address, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=5))
        key = f'xtune/told/{env.get("TORCHELASTIC_RESTART_COUNT")}/{zlib.crc32(text.encode())}'
        return store.add(key, 1) == 1
    except (dist.DistError, RuntimeError):
        return True  # better twice than never


def report_failures(failures: dict) -> int:
    """Print the error of the first rank that failed by itself; return its exit code."""
    rank, failure = min(failures.items(), key=lambda item: (_is_aftermath(item[1]), item[1].timestamp, item[0]))
    code = failure.exitcode
    if code == 130:
        return code
    message = failure.error_file_data.get('message')
    message = message if isinstance(message, dict) else {}
    if code == 2 and message:  # a user error, the same on every rank
        print('error: ' + visible(message['message'].partition(': ')[2], keep='\n'), file=sys.stderr)
        return code
    if code < 0:
        name = failure.signal_name()
        hint = ' (likely the out-of-memory killer)' if name == 'SIGKILL' else ''
        print(f'error: rank {rank} (process {failure.pid}) was killed by {name}{hint}', file=sys.stderr)
    elif message:
        print(f'rank {rank}:\n{message["extraInfo"]["py_callstack"].rstrip()}', file=sys.stderr)
    else:
        print(f'error: rank {rank} (process {failure.pid}) ended with exit code {code}', file=sys.stderr)
    print('the other ranks were stopped; resume from the latest checkpoint with --resume', file=sys.stderr)
    return 1


def _is_aftermath(failure) -> bool:
    stopped = failure.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM)  # by the launcher
    return stopped or any(text in str(failure.message) for text in AFTERMATH)


def _number(env: Mapping[str, str], name: str, default: int | None, low: int, high: int | None = None) -> int:
    text = env.get(name) or (None if default is None else str(default))
    if text is None:
        raise ConfigError(f'NNODES={env.get("NNODES")} needs {name} on each host')
    if not text.isdecimal() or int(text) < low or (high and int(text) > high):
        limits = f'from {low} to {high}' if high else f'of at least {low}'
        raise ConfigError(f'{name} must be an integer {limits}, got {text!r}')
    return int(text)
