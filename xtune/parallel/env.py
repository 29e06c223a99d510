"""The rank and world size of this process, read from the environment of the launcher. Imports no torch."""

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

# Launcher -> its variables for rank, world size, local rank, and ranks on this host.
VARIABLES: dict[str, tuple[str, str, str, str]] = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NTASKS_PER_NODE'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_SIZE'),
}
DEFAULT_PORT = 29500
LAST_PORT = 65535


@dataclass(frozen=True)
class World:
    """The ranks of a run, one per device, and the rank of this process.

    `rank` counts over all hosts, `local_rank` on this host. `attempt` is the number of restarts by the launcher so far,
    `restarts` the largest number of them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = '127.0.0.1'
    port: int = DEFAULT_PORT
    attempt: int = 0
    restarts: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and reports."""
        return self.rank == 0

    @property
    def host(self) -> str:
        """Name of this host."""
        return socket.gethostname()


ALONE = World()


def from_environment(launcher: str = 'none', env: Mapping[str, str] = os.environ) -> World:
    """Return the world that `launcher` ('none', 'pytorch', 'slurm', 'mpi') describes in `env`.

    With 'none', variables of torchrun are recognized; without them the world has one rank.

    Raises:
        ConfigError: A variable of that launcher is missing or not a number.
    """
    if launcher == 'none':
        launched = all(name in env for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'))
        if not launched:
            return ALONE
        launcher = 'pytorch'
    rank, size, local = (_number(launcher, name, env) for name in VARIABLES[launcher][:3])
    if not 0 <= rank < size:
        raise ConfigError(
            f'--launcher {launcher}: rank {rank} is out of range for {size} processes; see {VARIABLES[launcher]}'
        )
    visible = env.get('CUDA_VISIBLE_DEVICES', '').strip()
    if launcher in ('slurm', 'mpi') and visible and ',' not in visible:
        local = 0  # only one GPU is visible, as with --gpus-per-task=1
    address = env.get('MASTER_ADDR') or env.get('ADDR') or (_first_slurm_host(env) if launcher == 'slurm' else '')
    if not address:
        if size > 1 and _hosts(launcher, env) > 1:
            raise ConfigError(
                f'--launcher {launcher}: set ADDR to the name or address of the host of rank 0 (and PORT to a free '
                'port there), so that the ranks of the other hosts can connect'
            )
        address = '127.0.0.1'
    port = env.get('MASTER_PORT') or env.get('PORT') or _port_of_job(env)
    if not port.isdecimal() or not 1 <= int(port) <= LAST_PORT:
        raise ConfigError(f'PORT must be a number from 1 to {LAST_PORT}, got {port!r}')
    attempt, restarts = (int(env.get(f'TORCHELASTIC_{name}', 0)) for name in ('RESTART_COUNT', 'MAX_RESTARTS'))
    return World(rank, size, local, address, int(port), attempt, restarts)


def mute_other_ranks(world: World) -> None:
    """Let only rank 0 write to stdout and draw progress bars; errors still show. Call it before tqdm is imported."""
    if not world.is_main:
        os.environ['TQDM_DISABLE'] = '1'
        sys.stdout = open(os.devnull, 'w', encoding='utf-8')


def _number(launcher: str, name: str, env: Mapping[str, str]) -> int:
    value = env.get(name)
    if value is None or not value.isdecimal():
        shown = 'not set' if value is None else repr(value)
        starters = {'pytorch': 'torchrun', 'slurm': 'srun', 'mpi': 'mpirun'}
        raise ConfigError(
            f'--launcher {launcher} reads {name}, which is {shown}; start the processes with {starters[launcher]}, '
            'or omit --launcher and set NPROC_PER_NODE'
        )
    return int(value)


def _hosts(launcher: str, env: Mapping[str, str]) -> int:
    if launcher == 'slurm':
        return int(env.get('SLURM_NNODES', 1))
    _, size, _, local = (env.get(name, '') for name in VARIABLES[launcher])
    return 2 if local.isdecimal() and size.isdecimal() and int(local) < int(size) else 1


def _first_slurm_host(env: Mapping[str, str]) -> str:
    """Return the first host of Slurm's node list, such as gpu[003-005,9] or a1,b2."""
    text = env.get('SLURM_STEP_NODELIST') or env.get('SLURM_JOB_NODELIST') or ''
    first = re.match(r'(?:\[[^]]*\]|[^,[])*', text)[0]
    return re.sub(r'\[([^],-]*)[^]]*\]', r'\1', first)


def _port_of_job(env: Mapping[str, str]) -> str:
    """Return a port that differs between Slurm jobs on one host."""
    job = env.get('SLURM_JOB_ID', '')
    return str(20000 + int(job) % 20000) if job.isdecimal() else str(DEFAULT_PORT)
