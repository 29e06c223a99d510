"""One process loads a model, and the others build its frame without weights: a host holds one copy, not one each.

Rank 0 keeps its tensors aside and hands them out one by one, and a strategy takes its slice of each. So a process
holds no more than its slices and one tensor, and rank 0 what it has not handed out yet.
"""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .broadcast_weights import META, Layout, Weights, layouts, strip
from .collectives import all_gather_objects, raise_on_all_ranks, rank
from .rendezvous import Rendezvous

Model = torch.nn.Module


def load_once(
    load: Callable[[], Model],
    blueprint: Callable[[Model], Any | str],
    finish: Callable[[Model], Model],
    meeting: Rendezvous,
) -> tuple[Model, Weights]:
    """Return the model that `finish` makes of the one that `load` returns, and its weights in rank 0's hands.

    In rank 0 it is whole until `weights.strip` is called; in the others its tensors are on the meta device.

    Args:
        load: Loads the model; rank 0 calls it.
        blueprint: Returns something that can be pickled and whose `build` makes what `load` made, without weights; or a
            text that says why not: then every process loads the model, one of a host after another.
        finish: Puts on what is trained; it gets a model with weights or one without.
        meeting: Nothing waits in a collective while weights are read.

    Raises:
        XtuneError: The model could not be loaded, or `finish` refuses it.
    """
    llm, plan = None, None
    with raise_on_all_ranks():
        try:
            if rank() == 0:
                base = load()
                frame = blueprint(base)
                llm = finish(base)
                plan = _pickled(frame), layouts(llm)
        finally:
            meeting.wait_for_all('base model')
    frame, (parameters, buffers) = all_gather_objects(plan)[0]
    reason = None
    if rank():
        llm, reason = _built(frame, finish, parameters, buffers)
    reasons = [text for text in all_gather_objects(reason) if text]
    if reasons:
        print(f'note: the processes of a host load the model one after another, as {reasons[0]}')
        with raise_on_all_ranks():
            for mine in _turns(meeting):
                if mine:
                    llm = finish(load())
                    strip(llm, parameters)
    return llm, Weights(parameters, buffers)


def _built(
    frame: bytes | str, finish: Callable[[Model], Model], parameters: dict[str, Layout], buffers: dict[str, Layout]
) -> tuple[Model | None, str | None]:
    """Return the model without weights, or None and why it cannot be built."""
    if isinstance(frame, str):
        return None, frame
    try:
        with META:
            llm = finish(pickle.loads(frame).build())
    except Exception as error:  # models of any author, which may compute with their weights while they are built
        line = str(error).partition('\n')[0]
        return None, f'it cannot be built without weights ({type(error).__name__}: {line})'
    own, own_buffers = layouts(llm)
    if list(own) != list(parameters) or set(own_buffers) != set(buffers):
        odd = sorted({*own, *own_buffers} ^ {*parameters, *buffers})[:1]
        return None, f'built without weights it is another one ({odd})'
    for name, layout in own.items():
        if not layout.fits(parameters[name]):
            return None, f'built without weights it is another one ({name} is {layout}, not {parameters[name]})'
    for name, module in llm.named_modules():
        for attribute, value in vars(module).items():
            if torch.is_tensor(value):
                return None, f'{name}.{attribute} is a tensor, but neither weight nor buffer'
    return llm, None


def _pickled(frame: Any) -> bytes | str:
    try:
        return frame if isinstance(frame, str) else pickle.dumps(frame)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return f'its class cannot be named to other processes ({error})'


def _turns(meeting: Rendezvous) -> Iterator[bool]:
    """Yield once for each process of the host with the most, rank 0 left out; True when it is this one's turn."""
    hosts = [meeting.host_of(other) for other in range(meeting.world.size)]
    places = [hosts[1:other].count(hosts[other]) for other in range(meeting.world.size)]
    for turn in range(max(places) + 1):
        try:
            yield rank() > 0 and places[rank()] == turn
        finally:
            meeting.wait_for_all(f'turn {turn}')
