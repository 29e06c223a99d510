"""The tensors of a model that one process loaded, on their way to all; see `loading`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from .collectives import rank

META = torch.device('meta')


@dataclass(frozen=True)
class Layout:
    """What a parameter or buffer is, without its values. `packed`: two 4-bit values a byte, in a column."""

    shape: torch.Size
    dtype: torch.dtype
    trained: bool = False
    packed: bool = False

    @classmethod
    def of(cls, tensor: torch.Tensor) -> 'Layout':
        """Return the layout of `tensor`."""
        return cls(tensor.shape, tensor.dtype, tensor.requires_grad, _is_4bit(tensor))

    def fits(self, loaded: 'Layout') -> bool:
        """Tell whether a tensor built in this layout can hold a loaded one; its type is taken over."""
        same = self.trained == loaded.trained and self.packed == loaded.packed
        return same and (self.packed or self.shape == loaded.shape)


@dataclass
class Weights:
    """The parameters and buffers of a model by name, in rank 0's hands; each can be taken once.

    Every process makes the same calls in the same order.
    """

    parameters: dict[str, Layout]
    buffers: dict[str, Layout]
    _held: dict[str, torch.Tensor] = field(default_factory=dict)
    _states: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def strip(self, llm: torch.nn.Module) -> None:
        """Take the values out of `llm`, which is on the meta device after that."""
        if rank() == 0:
            self._states = {
                name: {key: value.cpu() for key, value in module.weight.quant_state.as_dict(packed=True).items()}
                for name, module in llm.named_modules()
                if any(_is_4bit(parameter) for parameter in module.parameters(recurse=False))
            }
        held = strip(llm, self.parameters)
        if rank() == 0:
            self._held = held

    def take(self, name: str, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a tensor on `device`: whole in rank 0, which lets go of it, and without values elsewhere."""
        layout = self.parameters.get(name) or self.buffers[name]
        if rank() == 0:
            return self._held.pop(name).to(device, dtype or layout.dtype).contiguous()
        return torch.empty(layout.shape, dtype=dtype or layout.dtype, device=device)

    def fill_buffers(self, llm: torch.nn.Module, device: torch.device) -> None:
        """Put rank 0's buffers, and what 4-bit layers know of their weights, into `llm`, on `device`."""
        for name, module, attribute, _ in list(_places(llm, 'buffers')):
            value = self.take(name, device)
            if value.numel():
                dist.broadcast(value.view(torch.uint8) if value.dim() else value, 0)
            setattr(module, attribute, value)
        if not any(layout.packed for layout in self.parameters.values()):
            return
        from bitsandbytes.functional import QuantState

        for name, layout in self.parameters.items():
            if layout.packed:
                layer = name.rpartition('.')[0]
                state = [self._states.pop(layer, None)]
                dist.broadcast_object_list(state, 0)
                llm.get_submodule(layer).quant_state = QuantState.from_dict(state[0], device)


def layouts(llm: torch.nn.Module) -> tuple[dict[str, Layout], dict[str, Layout]]:
    """Return the layouts of parameters and buffers of `llm`, by name; a tied parameter has its first one."""
    buffers = {name: Layout.of(buffer) for name, _, _, buffer in _places(llm, 'buffers')}
    return {name: Layout.of(parameter) for name, parameter in llm.named_parameters()}, buffers


def strip(llm: torch.nn.Module, layouts: dict[str, Layout]) -> dict[str, torch.Tensor]:
    """Leave `llm` with parameters and buffers of these layouts on the meta device; return what it had, on the CPU."""
    had = {name: parameter.data for name, parameter in llm.named_parameters()}

    def empty(name: str, _: torch.nn.Parameter) -> torch.Tensor:
        return torch.empty(layouts[name].shape, dtype=layouts[name].dtype, device=META)

    replace_parameters(llm, empty)
    for name, module, attribute, buffer in list(_places(llm, 'buffers')):
        had[name] = buffer
        setattr(module, attribute, buffer.to(META))
    return {name: tensor if tensor.is_meta else tensor.cpu() for name, tensor in had.items()}


def replace_parameters(llm: torch.nn.Module, made: Callable[[str, torch.nn.Parameter], torch.Tensor]) -> None:
    """Replace every parameter by what `made` returns, a parameter or its tensor; what was tied stays so."""
    new: dict[int, tuple] = {}  # the old one is kept, so that no other gets its id
    for name, module, attribute, old in list(_places(llm, 'parameters')):
        if id(old) not in new:
            tensor = made(name, old)
            whole = isinstance(tensor, torch.nn.Parameter)
            new[id(old)] = old, tensor if whole else torch.nn.Parameter(tensor, requires_grad=old.requires_grad)
        setattr(module, attribute, new[id(old)][1])


def _places(llm: torch.nn.Module, kind: str) -> Iterator[tuple[str, torch.nn.Module, str, torch.Tensor]]:
    """Yield (name, module, attribute, tensor) of all 'parameters' or 'buffers', tied ones at each of their places."""
    for prefix, module in llm.named_modules():
        for attribute, tensor in getattr(module, f'named_{kind}')(recurse=False):
            yield f'{prefix}.{attribute}' if prefix else attribute, module, attribute, tensor


def _is_4bit(tensor: torch.Tensor | None) -> bool:
    return type(tensor).__name__ == 'Params4bit'
