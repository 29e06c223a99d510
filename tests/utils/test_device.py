"""What a device has, and what a run leaves on it."""

import gc
import weakref

import pytest
import torch

from xtune.utils.device import memory_freed_after


class Holder:
    """Refers to itself, as a model and what belongs to it do."""

    def __init__(self):
        self.own = self


@pytest.mark.parametrize('fails', [False, True])
@pytest.mark.parametrize(('kind', 'freed'), [('cuda', True), ('cpu', False)])
def test_reference_cycles_are_freed_on_a_gpu(kind, freed, fails):
    def run():
        holders.append(weakref.ref(Holder()))
        if fails:
            raise ValueError

    holders = []
    gc.disable()  # so that nothing else frees it
    try:
        try:
            with memory_freed_after(torch.device(kind)):
                run()
        except ValueError:
            pass
        assert (holders[0]() is None) == freed
    finally:
        gc.enable()
