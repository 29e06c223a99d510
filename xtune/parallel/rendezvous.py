"""How the processes of a run find each other: first through a key-value store, later as a torch process group.

The group is made after the data are prepared: nothing that takes long may happen while others wait in a collective.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from tqdm import tqdm

from ..errors import ConfigError
from .env import World
from .teardown import destroy_groups
from .timeout_errors import LostProcess

# Seconds for every process to start and import its libraries; the environment variable XTUNE_ARRIVAL sets another.
ARRIVAL = 120.0
# Seconds for the first all-reduce. It moves four bytes; what is longer does not come.
FIRST_WORD = 60
# Seconds between words to a person who waits.
PATIENCE = 60


class Rendezvous:
    """The store through which the processes of `world` find each other.

    Raises:
        LostProcess: Some did not arrive within `arrival` seconds; they are named.
    """

    def __init__(self, world: World, arrival: float | None = None) -> None:
        self.world = world
        arrival = _arrival() if arrival is None else arrival
        store = self._reach_rank_0(arrival)
        self.store = dist.PrefixStore(f'xtune/{world.attempt}', store)
        self.store.set(f'here/{world.rank}', world.host)
        absent = self._absent('here', arrival)
        if absent:
            known = sorted({self.store.get(f'here/{r}').decode() for r in range(world.size) if r not in absent})
            raise LostProcess(
                f'{_ranks(absent)} of {world.size} did not arrive within {arrival:.0f} s; those that did run on '
                f'{", ".join(known)}. Look at the output of the missing ones; XTUNE_ARRIVAL=600 waits longer.'
            )

    def _reach_rank_0(self, seconds: float) -> dist.Store:
        """Return the store of rank 0, or of the launcher, which outlives a process."""
        world = self.world
        host = world.is_main and not _launcher_has_store()
        try:
            # Whoever is missing is named later, so nobody waits for workers here.
            return dist.TCPStore(
                world.address,
                world.port,
                is_master=host,
                timeout=timedelta(seconds=seconds),
                wait_for_workers=False,
            )
        except (dist.DistError, RuntimeError, OSError) as error:
            why = str(error).splitlines()[0]
            raise LostProcess(
                f'rank 0 on {world.host} cannot listen at {world.address}:{world.port} ({why}); set PORT to a free '
                'port, and ADDR to an address of this host'
                if host
                else f'rank {world.rank} on {world.host} cannot reach rank 0 at {world.address}:{world.port} within '
                f'{seconds:.0f} s ({why}); is it running, is ADDR its address, and is the port open?'
            ) from error

    def host_of(self, rank: int) -> str:
        """Return the name of the host that `rank` runs on."""
        return self.store.get(f'here/{rank}').decode()

    def said_by_main(self, topic: str, text: str | None) -> str:
        """Return what the main process passes as `text` under `topic`; the others wait for it."""
        if self.world.is_main:
            self.store.set(f'say/{topic}', text or '')
        else:
            self._wait(f'say/{topic}', 0)
        return self.store.get(f'say/{topic}').decode()

    def part(self, seconds: float = 10.0) -> None:
        """Let the main process wait until all have come here: where it keeps the store, that ends with it."""
        self.store.set(f'part/{self.world.rank}', '1')
        if self.world.is_main:
            self._absent('part', seconds)

    def wait_for_all(self, topic: str) -> None:
        """Return once every process has come here, however long the slowest takes; a person is told whom it is."""
        self.store.set(f'{topic}/{self.world.rank}', '1')
        for rank in range(self.world.size):
            self._wait(f'{topic}/{rank}', rank)

    def _wait(self, key: str, rank: int) -> None:
        began = time.monotonic()
        while True:
            try:
                self.store.wait([key], timedelta(seconds=PATIENCE))
                return
            except (dist.DistStoreError, RuntimeError) as error:
                if 'imeout' not in str(error) and 'timed out' not in str(error):
                    raise LostProcess(f'lost contact with the other processes: {str(error).splitlines()[0]}') from error
            waited = time.monotonic() - began
            tqdm.write(f'waiting for rank {rank} on {self.host_of(rank)} since {waited:.0f} s')

    def _absent(self, topic: str, seconds: float) -> list[int]:
        """Return the ranks that did not set `topic` within `seconds`."""
        deadline, absent = time.monotonic() + seconds, []
        for rank in range(self.world.size):
            left = max(deadline - time.monotonic(), 0.01)
            try:
                self.store.wait([f'{topic}/{rank}'], timedelta(seconds=left))
            except (dist.DistStoreError, RuntimeError):
                absent.append(rank)
        return absent

    @contextmanager
    def group(self, device: torch.device, timeout: float, first_word: float = FIRST_WORD) -> Iterator[None]:
        """Have a process group of all processes: gloo between CPUs, nccl between GPUs.

        What the block built must be out of reach when it ends: the group's threads end with the last reference to it.

        Args:
            device: The device of this process.
            timeout: Seconds after which a collective that is not joined by all ends the run.
            first_word: Seconds for the first all-reduce.

        Raises:
            LostProcess: The first all-reduce did not get through; the ranks and hosts that did not join are named.
        """
        backend = 'cpu:gloo,cuda:nccl' if device.type == 'cuda' else 'gloo'
        dist.init_process_group(
            backend,
            store=dist.PrefixStore('group', self.store),
            rank=self.world.rank,
            world_size=self.world.size,
            timeout=timedelta(seconds=timeout),
            device_id=device if device.type == 'cuda' else None,
        )
        try:
            self._first_word(device, first_word)
            yield
        finally:
            destroy_groups()

    def _first_word(self, device: torch.device, seconds: float) -> None:
        self.store.set(f'calls/{self.world.rank}', '1')
        try:
            one = torch.ones(1, device=device)
            dist.all_reduce(one, async_op=True).wait(timedelta(seconds=seconds))
            total = int(one.item())
        except RuntimeError as error:
            absent = [f'rank {rank} on {self.host_of(rank)}' for rank in self._absent('calls', 1)]
            cause = (
                f'{", ".join(absent)} did not answer; look at the output there'
                if absent
                else 'all processes called, so it is the network between them; see NCCL_SOCKET_IFNAME, NCCL_IB_DISABLE'
            )
            raise LostProcess(
                f'the first all-reduce did not get through within {seconds:.0f} s: {cause} '
                f'({str(error).splitlines()[0]})'
            ) from error
        assert total == self.world.size, f'{total} of {self.world.size} answered'


def _launcher_has_store() -> bool:
    return os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'


def _arrival() -> float:
    text = os.environ.get('XTUNE_ARRIVAL')
    try:
        seconds = float(text or ARRIVAL)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigError(f'XTUNE_ARRIVAL must be a number of seconds, got {text!r}')
    return seconds


def _ranks(ranks: list[int]) -> str:
    return ('rank ' if len(ranks) == 1 else 'ranks ') + ', '.join(map(str, ranks))
