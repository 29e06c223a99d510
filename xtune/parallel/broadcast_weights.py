"""The tensors of a model that rank 0 loaded, to be sent to all ranks; see `rank0_loading`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from .collectives import rank

META = torch.device('meta')


@dataclass(frozen=True)
class TensorSpec:
    """A parameter or buffer without its values.

    Attributes:
        is_4bit: A 4-bit weight of bitsandbytes: two values per byte, in a column.
    """

    shape: torch.Size
    dtype: torch.dtype
    requires_grad: bool = False
    is_4bit: bool = False

    @classmethod
    def of(cls, tensor: torch.Tensor) -> 'TensorSpec':
        """Return the spec of `tensor`."""
        return cls(tensor.shape, tensor.dtype, tensor.requires_grad, _is_4bit(tensor))

    def can_receive(self, loaded: 'TensorSpec') -> bool:
        """Return whether a tensor with this spec can receive the values of a loaded one, and then has its type."""
        same = self.requires_grad == loaded.requires_grad and self.is_4bit == loaded.is_4bit
        return same and (self.is_4bit or self.shape == loaded.shape)


@dataclass
class RankZeroWeights:
    """The parameters and buffers of a model by name, with their values on rank 0. Each can be taken once.

    All ranks make the same calls in the same order.
    """

    parameters: dict[str, TensorSpec]
    buffers: dict[str, TensorSpec]
    _values: dict[str, torch.Tensor] = field(default_factory=dict)
    _quant_states: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def strip(self, llm: torch.nn.Module) -> None:
        """Take the values out of `llm`, which is on the meta device after that."""
        if rank() == 0:
            self._quant_states = {
                name: {key: value.cpu() for key, value in module.weight.quant_state.as_dict(packed=True).items()}
                for name, module in llm.named_modules()
                if any(_is_4bit(parameter) for parameter in module.parameters(recurse=False))
            }
        values = move_to_meta(llm, self.parameters)
        if rank() == 0:
            self._values = values

    def take(self, name: str, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a tensor on `device`: with its values on rank 0, which forgets them, and uninitialized elsewhere."""
        spec = self.parameters.get(name) or self.buffers[name]
        if rank() == 0:
            return self._values.pop(name).to(device, dtype or spec.dtype).contiguous()
        return torch.empty(spec.shape, dtype=dtype or spec.dtype, device=device)

    def fill_buffers(self, llm: torch.nn.Module, device: torch.device) -> None:
        """Broadcast rank 0's buffers, and the quantization states of 4-bit layers, into `llm`, on `device`."""
        for name, module, attribute, _ in list(_attributes(llm, 'buffers')):
            value = self.take(name, device)
            if value.numel():
                dist.broadcast(value.view(torch.uint8) if value.dim() else value, 0)
            setattr(module, attribute, value)
        if not any(spec.is_4bit for spec in self.parameters.values()):
            return
        from bitsandbytes.functional import QuantState

        for name, spec in self.parameters.items():
            if spec.is_4bit:
                layer = name.rpartition('.')[0]
                state = [self._quant_states.pop(layer, None)]
                dist.broadcast_object_list(state, 0)
                llm.get_submodule(layer).quant_state = QuantState.from_dict(state[0], device)


def specs_of(llm: torch.nn.Module) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Return the specs of parameters and of buffers of `llm` by name; a tied parameter has its first name."""
    buffers = {name: TensorSpec.of(buffer) for name, _, _, buffer in _attributes(llm, 'buffers')}
    return {name: TensorSpec.of(parameter) for name, parameter in llm.named_parameters()}, buffers


def move_to_meta(llm: torch.nn.Module, specs: dict[str, TensorSpec]) -> dict[str, torch.Tensor]:
    """Replace the parameters of `llm`, by tensors of these specs, and its buffers on the meta device.

    Returns:
        Their values by name, on the CPU.
    """
    values = {name: parameter.data for name, parameter in llm.named_parameters()}

    def empty(name: str, _: torch.nn.Parameter) -> torch.Tensor:
        return torch.empty(specs[name].shape, dtype=specs[name].dtype, device=META)

    replace_parameters(llm, empty)
    for name, module, attribute, buffer in list(_attributes(llm, 'buffers')):
        values[name] = buffer
        setattr(module, attribute, buffer.to(META))
    return {name: tensor if tensor.is_meta else tensor.cpu() for name, tensor in values.items()}


def replace_parameters(llm: torch.nn.Module, replacement: Callable[[str, torch.nn.Parameter], torch.Tensor]) -> None:
    """Replace every parameter by `replacement(name, parameter)`, a parameter or its tensor; tied ones stay tied."""
    replaced: dict[int, tuple] = {}  # with the old parameter, so that no other gets its id
    for name, module, attribute, old in list(_attributes(llm, 'parameters')):
        if id(old) not in replaced:
            new = replacement(name, old)
            if not isinstance(new, torch.nn.Parameter):
                new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            replaced[id(old)] = old, new
        setattr(module, attribute, replaced[id(old)][1])


def _attributes(llm: torch.nn.Module, which: str) -> Iterator[tuple[str, torch.nn.Module, str, torch.Tensor]]:
    """Yield (name, module, attribute, tensor) of all 'parameters' or 'buffers', tied ones once per module."""
    for prefix, module in llm.named_modules():
        for attribute, tensor in getattr(module, f'named_{which}')(recurse=False):
            yield f'{prefix}.{attribute}' if prefix else attribute, module, attribute, tensor


def _is_4bit(tensor: torch.Tensor | None) -> bool:
    return type(tensor).__name__ == 'Params4bit'
