"""A run leaves no threads in its process: neither of process groups nor of the watchdog."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from xtune.parallel.broadcast_weights import RankZeroWeights, specs_of
from xtune.parallel.env import World
from xtune.parallel.fsdp import full_tensor, shard
from xtune.parallel.rendezvous import Rendezvous
from xtune.parallel.ulysses import SequenceParallelGroup
from xtune.parallel.watchdog import Watchdog

pytestmark = pytest.mark.integration

CPU = torch.device('cpu')


def gloo_threads():
    """Return the names of the gloo threads in this process, which are not Python threads."""
    names = [path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')]
    return [name for name in names if 'gloo' in name]


def more_gloo_threads_than(number):
    """Return whether more threads appear within 10 s; a thread gets its name when it first runs."""
    end = time.monotonic() + 10
    while len(gloo_threads()) <= number and time.monotonic() < end:
        time.sleep(0.01)
    return len(gloo_threads()) > number


@pytest.fixture
def group(ports):
    """Return a process group of one rank, which has threads."""
    [port] = ports(1)
    rendezvous = Rendezvous(World(0, 1, 0, '127.0.0.1', port))

    def group():
        return rendezvous.group(CPU, timeout=60)

    with group():
        assert more_gloo_threads_than(0), 'gloo names its threads otherwise: these tests see nothing'
    assert not gloo_threads()
    return group


def llama():
    config = dict(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(**config))


def test_a_sequence_parallel_group_keeps_no_process_group_alive(group):
    with group():
        sp_group = SequenceParallelGroup(llama(), 1, timeout=60)
        assert dist.get_world_size(sp_group.group) == 1
        assert more_gloo_threads_than(3)
    assert not gloo_threads()
    with pytest.raises(AssertionError, match='destroyed'):
        sp_group.group  # noqa: B018


def train_sharded():
    llm = llama()
    llm = shard(llm, RankZeroWeights(*specs_of(llm)), CPU, torch.float32)
    llm(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    assert all(full_tensor(p.grad).shape == p.shape for p in llm.parameters())


def test_sharding_leaves_no_process_group_in_the_caches_of_torch(group):
    for _ in range(2):  # the second mesh counts as equal to the first, whose group is gone
        with group():
            train_sharded()
        assert not gloo_threads()


@pytest.fixture
def started():
    """Return a function that gives the threads that this test started and that are alive."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) - before


def open_files():
    """Return what the file descriptors of this process refer to."""
    links = (Path('/proc/self/fd') / name for name in os.listdir('/proc/self/fd'))
    return {os.readlink(link) for link in links if link.is_symlink()}


def test_the_watchdog_ends_with_its_context(tmp_path, started):
    before = open_files()
    with Watchdog(tmp_path, 0, hang_seconds=60):
        assert started() and open_files() > before
    assert not started() and open_files() == before


def test_a_rank_that_stopped_on_request_is_not_killed(tmp_path, started):
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with Watchdog(tmp_path, 0, hang_seconds=60, grace_seconds=300):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
            began = time.monotonic()
        assert not started() and time.monotonic() - began < 10
    finally:
        signal.signal(signal.SIGTERM, before)
