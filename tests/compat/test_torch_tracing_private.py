"""Every private name of torch that memory plans use is there and does what they rely on."""

import torch

from xtune.compat import torch_tracing_private as private


class Operations(private.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_fake_tensors_have_shapes_and_no_values():
    with private.FakeTensorMode():
        assert (torch.ones(2**40) + 1).shape == (2**40,)


def test_storages_have_different_keys_with_and_without_values():
    for mode in (private.FakeTensorMode(), torch.no_grad()):
        with mode:
            one, other = torch.ones(4), torch.ones(4)
            assert private.storage_key(one) == private.storage_key(one[1:]) != private.storage_key(other)


def test_a_mode_sees_operations_and_their_names():
    with Operations() as mode:
        (torch.ones(2) + 1).sum().item()
    assert 'aten::add' in map(private.name_of, mode.seen)
    assert private.LOCAL_SCALAR in mode.seen


def test_leaves_of_a_tree():
    assert private.tree_leaves({'a': [1, (2,)], 'b': 3}) == [1, 2, 3]
