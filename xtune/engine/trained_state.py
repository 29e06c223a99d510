"""The state dict of what is trained: the adapter under peft's names, or all weights and persistent buffers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict

from ..errors import CheckpointError
from ..parallel.fsdp import reshard
from .strategies import Strategy


class TrainedState:
    """Reads and writes the trained part of a model and its optimizer's state.

    All methods are collective calls. Tensors are gathered one by one, and each rank may keep some of them.

    Args:
        llm: The model.
        strategy: Gathers and shards single parameters.
    """

    def __init__(self, llm: torch.nn.Module, strategy: Strategy) -> None:
        self.llm, self.strategy = llm, strategy

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is trained (megabytes), and not the full model."""
        return isinstance(self.llm, PeftModel)

    def get(self, keep: Callable[[int], bool] = lambda _: True, copy: bool = False) -> dict[str, torch.Tensor]:
        """Return the trained tensors in full, on the CPU, whose number `keep` accepts.

        With `copy`, none shares memory with a parameter.

        Raises:
            CheckpointError: A tensor was gathered in another shape than its parameter has.
        """
        found, wrong = {}, ''
        for number, (name, parameter) in enumerate(self._own().items()):
            tensor = self._full(parameter)
            if tensor.shape != _shape(parameter):
                wrong = f'{name} is {tuple(_shape(parameter))}, but was gathered as {tuple(tensor.shape)}'
            if keep(number):
                found[name] = tensor.detach().to('cpu', copy=copy)
        if wrong:  # raised here, as the other processes gather too
            raise CheckpointError(f'no checkpoint was written: {wrong}; earlier ones are untouched')
        return found

    def optimizer_states(
        self, keep: Callable[[int], bool] = lambda _: True, copy: bool = False
    ) -> dict[int, dict[str, Any]]:
        """Return the optimizer's state of trained parameters by number, on the CPU, those whose number `keep` wants.

        With `copy`, nothing shares memory with the optimizer.
        """
        found = {}
        for number, parameter in enumerate(self._trained()):
            states = self.strategy.optimizer_state(parameter)
            if keep(number) and states:
                found[number] = {k: v.to('cpu', copy=copy) if torch.is_tensor(v) else v for k, v in states.items()}
        return found

    def names(self) -> set[str]:
        """Return the names of the tensors that `get` returns."""
        return set(self._own())

    def set(self, state: dict[str, torch.Tensor], origin: Path) -> None:
        """Load tensors that `get` returned.

        Raises:
            CheckpointError: Names or shapes are those of another model or adapter.
        """
        own = self._own()
        # Checkpoints of earlier versions hold no buffers. Buffers are not trained, so those of the base are right.
        buffers = {name for name, tensor in own.items() if not isinstance(tensor, torch.nn.Parameter)}
        missing, extra = sorted(set(own) - set(state) - buffers), sorted(set(state) - set(own))
        if missing or extra:
            example = (missing or extra)[0]
            raise CheckpointError(
                f'{origin} does not fit this model: {len(missing)} tensors are missing from it and {len(extra)} '
                f'unknown, such as {example}. Was it written with another model or another `lora`?'
            )
        own = {name: tensor for name, tensor in own.items() if name in state}
        for name, parameter in own.items():
            shape = _shape(parameter)
            if shape != state[name].shape:
                raise CheckpointError(
                    f'{origin} does not fit this model: {name} is {tuple(state[name].shape)} there and '
                    f'{tuple(shape)} here. Was it written with another `lora.r` or another model?'
                )
        for name, tensor in own.items():
            if isinstance(tensor, torch.nn.Parameter):
                self.strategy.load_tensor(tensor, state[name])
            else:
                tensor.copy_(state[name])

    def set_optimizer_states(self, states: dict[int, dict[str, Any]]) -> None:
        """Load what `optimizer_states` returned."""
        self.strategy.load_optimizer_state(self._trained(), states)

    def _trained(self) -> list[torch.nn.Parameter]:
        reshard(self.llm)
        return [p for p in self.llm.parameters() if p.requires_grad]

    def _full(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the unsharded value of a parameter or buffer; every rank holds all of a buffer."""
        return self.strategy.full_tensor(tensor) if isinstance(tensor, torch.nn.Parameter) else tensor

    def _own(self) -> dict[str, torch.Tensor]:
        """Return the parameters and persistent buffers that are saved, by the names they are saved under."""
        reshard(self.llm)
        if self.is_adapter:
            # Tied weights under each of their names, as peft looks modules up by name.
            names = dict(self.llm.named_buffers(remove_duplicate=False))
            names |= dict(self.llm.named_parameters(remove_duplicate=False))
            # Asking for embedding layers would make peft look the base model up on the hub.
            return get_peft_model_state_dict(self.llm, state_dict=names, save_embedding_layers=False)
        return dict(self.llm.named_parameters()) | persistent_buffers(self.llm)


def persistent_buffers(llm: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers of `llm` that belong to its weights, by name; others are computed when it is built."""
    saved = llm.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in llm.named_buffers() if name in saved}


def _shape(parameter: torch.Tensor) -> torch.Size:
    return getattr(parameter, 'ds_shape', parameter.shape)  # ZeRO-3 leaves an empty tensor in place
