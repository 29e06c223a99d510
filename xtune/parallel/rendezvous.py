"""Rendezvous of the ranks of a run: first through a key-value store, later as a torch process group.

The process group is made after the data are prepared: nothing that takes long may run while others wait in a
collective.
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
from .timeout_errors import LostRank

# Seconds for all ranks to start and import their libraries; the environment variable XTUNE_ARRIVAL overrides it.
JOIN_TIMEOUT = 120.0
# Seconds for the warm-up all-reduce. It moves four bytes: if it takes longer, it never arrives.
WARMUP_TIMEOUT = 60
# Seconds between messages to a user who waits.
MESSAGE_INTERVAL = 60


class Rendezvous:
    """The key-value store that the ranks of `world` join.

    Args:
        world: The ranks of the run.
        join_timeout: Seconds for all ranks to join; None: `JOIN_TIMEOUT`, or XTUNE_ARRIVAL.

    Raises:
        LostRank: Some ranks, which the message names, did not join in time.
    """

    def __init__(self, world: World, join_timeout: float | None = None) -> None:
        self.world = world
        join_timeout = _join_timeout() if join_timeout is None else join_timeout
        store = self._connect(join_timeout)
        self.store = dist.PrefixStore(f'xtune/{world.attempt}', store)
        self.store.set(f'here/{world.rank}', world.host)
        absent = self._absent('here', join_timeout)
        if absent:
            known = sorted({self.store.get(f'here/{r}').decode() for r in range(world.size) if r not in absent})
            raise LostRank(
                f'{_ranks(absent)} of {world.size} did not join within {join_timeout:.0f} s; the others run on '
                f'{", ".join(known)}. Look at the output of the missing ranks; XTUNE_ARRIVAL=600 waits longer.'
            )

    def _connect(self, seconds: float) -> dist.Store:
        """Return the store of rank 0, or that of the launcher, which outlives a rank."""
        world = self.world
        is_master = world.is_main and not _launcher_has_store()
        try:
            # Missing ranks are named later, so the store does not wait for them.
            return dist.TCPStore(
                world.address,
                world.port,
                is_master=is_master,
                timeout=timedelta(seconds=seconds),
                wait_for_workers=False,
            )
        except (dist.DistError, RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise LostRank(
                f'rank 0 on {world.host} cannot listen at {world.address}:{world.port} ({reason}); set PORT to a free '
                'port, and ADDR to an address of this host'
                if is_master
                else f'rank {world.rank} on {world.host} cannot reach rank 0 at {world.address}:{world.port} within '
                f'{seconds:.0f} s ({reason}); is it running, is ADDR its address, and is the port open?'
            ) from error

    def host_of(self, rank: int) -> str:
        """Return the name of the host of `rank`."""
        return self.store.get(f'here/{rank}').decode()

    def broadcast_text(self, topic: str, text: str | None) -> str:
        """Return the `text` of rank 0 under `topic`; the other ranks wait for it."""
        if self.world.is_main:
            self.store.set(f'say/{topic}', text or '')
        else:
            self._wait(f'say/{topic}', 0)
        return self.store.get(f'say/{topic}').decode()

    def wait_before_exit(self, seconds: float = 10.0) -> None:
        """Let rank 0 wait until all ranks call this: the store ends with rank 0 where that has it."""
        self.store.set(f'part/{self.world.rank}', '1')
        if self.world.is_main:
            self._absent('part', seconds)

    def wait_for_all(self, topic: str) -> None:
        """Return once every rank has called this, however long the slowest takes; messages name the rank."""
        self.store.set(f'{topic}/{self.world.rank}', '1')
        for rank in range(self.world.size):
            self._wait(f'{topic}/{rank}', rank)

    def _wait(self, key: str, rank: int) -> None:
        began = time.monotonic()
        while True:
            try:
                self.store.wait([key], timedelta(seconds=MESSAGE_INTERVAL))
                return
            except (dist.DistStoreError, RuntimeError) as error:
                if 'imeout' not in str(error) and 'timed out' not in str(error):
                    raise LostRank(f'lost contact with the other ranks: {str(error).splitlines()[0]}') from error
            waited = time.monotonic() - began
            tqdm.write(f'waiting for rank {rank} on {self.host_of(rank)} since {waited:.0f} s')

    def _absent(self, topic: str, seconds: float) -> list[int]:
        """Return the ranks that did not set `topic` within `seconds`."""
        deadline, absent = time.monotonic() + seconds, []
        for rank in range(self.world.size):
            remaining = max(deadline - time.monotonic(), 0.01)
            try:
                self.store.wait([f'{topic}/{rank}'], timedelta(seconds=remaining))
            except (dist.DistStoreError, RuntimeError):
                absent.append(rank)
        return absent

    @contextmanager
    def group(self, device: torch.device, timeout: float, warmup_timeout: float = WARMUP_TIMEOUT) -> Iterator[None]:
        """Return a context with a process group of all ranks: gloo between CPUs, NCCL between GPUs.

        The block must keep no reference to what it built: the group's threads end with the last reference to it.

        Args:
            device: The device of this rank.
            timeout: Seconds after which a collective that some rank does not join ends the run.
            warmup_timeout: Seconds for the warm-up all-reduce.

        Raises:
            LostRank: The warm-up all-reduce failed; the message names the ranks and hosts that did not join.
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
            self._warm_up(device, warmup_timeout)
            yield
        finally:
            destroy_groups()

    def _warm_up(self, device: torch.device, seconds: float) -> None:
        self.store.set(f'calls/{self.world.rank}', '1')
        try:
            one = torch.ones(1, device=device)
            dist.all_reduce(one, async_op=True).wait(timedelta(seconds=seconds))
            total = int(one.item())
        except RuntimeError as error:
            absent = [f'rank {rank} on {self.host_of(rank)}' for rank in self._absent('calls', 1)]
            cause = (
                f'{", ".join(absent)} did not join; look at the output there'
                if absent
                else 'all ranks joined, so it is the network between them; see NCCL_SOCKET_IFNAME, NCCL_IB_DISABLE'
            )
            raise LostRank(
                f'the warm-up all-reduce failed within {seconds:.0f} s: {cause} ({str(error).splitlines()[0]})'
            ) from error
        assert total == self.world.size, f'{total} of {self.world.size} ranks joined the warm-up all-reduce'


def _launcher_has_store() -> bool:
    return os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'


def _join_timeout() -> float:
    text = os.environ.get('XTUNE_ARRIVAL')
    try:
        seconds = float(text or JOIN_TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigError(f'XTUNE_ARRIVAL must be a number of seconds, got {text!r}')
    return seconds


def _ranks(ranks: list[int]) -> str:
    return ('rank ' if len(ranks) == 1 else 'ranks ') + ', '.join(map(str, ranks))
