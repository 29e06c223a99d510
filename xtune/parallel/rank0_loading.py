"""Rank 0 loads a model and the other ranks build it on the meta device: a host has one copy, not one per rank.

Rank 0 keeps the tensors and broadcasts them one by one, and a strategy takes its shard of each. So a rank has no more
than its shards and one tensor, and rank 0 also the tensors that it has not broadcast yet.
"""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .broadcast_weights import META, RankZeroWeights, TensorSpec, move_to_meta, specs_of
from .collectives import all_gather_objects, raise_on_all_ranks, rank
from .rendezvous import Rendezvous

Model = torch.nn.Module


def load_on_rank0(
    load: Callable[[], Model],
    meta_init: Callable[[Model], Any | str],
    finish: Callable[[Model], Model],
    rendezvous: Rendezvous,
) -> tuple[Model, RankZeroWeights]:
    """Return the model that `finish` makes of the loaded one, and its weights.

    On rank 0 it has its values until `weights.strip` is called; on the others its tensors are on the meta device.

    Args:
        load: Loads the model; rank 0 calls it.
        meta_init: Returns an object that can be pickled, whose `build` makes the loaded model without weights; or a
            text with the reason why there is none. Then all ranks load the model, one rank of a host at a time.
        finish: Adds the trained parts, to a model with values or without.
        rendezvous: Of the ranks; none waits in a collective while weights are read.

    Raises:
        XtuneError: The model could not be loaded, or `finish` refuses it.
    """
    llm, plan = None, None
    with raise_on_all_ranks():
        try:
            if rank() == 0:
                base = load()
                meta = meta_init(base)
                llm = finish(base)
                plan = _pickled(meta), specs_of(llm)
        finally:
            rendezvous.wait_for_all('base model')
    meta, (parameters, buffers) = all_gather_objects(plan)[0]
    reason = None
    if rank():
        llm, reason = _build_on_meta(meta, finish, parameters, buffers)
    reasons = [text for text in all_gather_objects(reason) if text]
    if reasons:
        print(f'note: meta-device init failed ({reasons[0]}); the ranks of a host load the model one after another')
        with raise_on_all_ranks():
            for is_my_turn in _turns(rendezvous):
                if is_my_turn:
                    llm = finish(load())
                    move_to_meta(llm, parameters)
    return llm, RankZeroWeights(parameters, buffers)


def _build_on_meta(
    meta: bytes | str,
    finish: Callable[[Model], Model],
    parameters: dict[str, TensorSpec],
    buffers: dict[str, TensorSpec],
) -> tuple[Model | None, str | None]:
    """Return the model on the meta device, or None and the reason why it cannot be built."""
    if isinstance(meta, str):
        return None, meta
    try:
        with META:
            llm = finish(pickle.loads(meta).build())
    except Exception as error:  # any author's model, which may compute with its weights while it is built
        line = str(error).partition('\n')[0]
        return None, f'it cannot be built without weights ({type(error).__name__}: {line})'
    own_parameters, own_buffers = specs_of(llm)
    if list(own_parameters) != list(parameters) or set(own_buffers) != set(buffers):
        difference = sorted({*own_parameters, *own_buffers} ^ {*parameters, *buffers})[:1]
        return None, f'built without weights it has other tensors ({difference})'
    for name, spec in own_parameters.items():
        if not spec.can_receive(parameters[name]):
            return None, f'built without weights it has other tensors ({name} is {spec}, not {parameters[name]})'
    for name, module in llm.named_modules():
        for attribute, value in vars(module).items():
            if torch.is_tensor(value):
                return None, f'{name}.{attribute} is a tensor, but neither a parameter nor a buffer'
    return llm, None


def _pickled(meta: Any) -> bytes | str:
    try:
        return meta if isinstance(meta, str) else pickle.dumps(meta)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return f'its class cannot be pickled for the other ranks ({error})'


def _turns(rendezvous: Rendezvous) -> Iterator[bool]:
    """Yield once for each rank of the host that has the most, without rank 0; True when it is this rank's turn."""
    hosts = [rendezvous.host_of(other) for other in range(rendezvous.world.size)]
    places = [hosts[1:other].count(hosts[other]) for other in range(rendezvous.world.size)]
    for turn in range(max(places) + 1):
        try:
            yield rank() > 0 and places[rank()] == turn
        finally:
            rendezvous.wait_for_all(f'turn {turn}')
