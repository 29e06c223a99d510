"""The state dict of the trained weights: the adapter under peft's names, or all weights and persistent buffers."""

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

    All methods are collective calls. Tensors are gathered one by one, and each rank may keep a part of them.

    Args:
        llm: The model.
        strategy: Gathers and shards individual parameters.
    """

    def __init__(self, llm: torch.nn.Module, strategy: Strategy) -> None:
        self.llm, self.strategy = llm, strategy

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is trained (megabytes), and not the full model."""
        return isinstance(self.llm, PeftModel)

    def get(self, keep: Callable[[int], bool] = lambda _: True, copy: bool = False) -> dict[str, torch.Tensor]:
        """Return the unsharded trained tensors on the CPU, those whose number `keep` accepts.

        With `copy`, no tensor shares memory with a parameter.

        Raises:
            CheckpointError: A gathered tensor has another shape than its parameter.
        """
        tensors, mismatch = {}, ''
        for number, (name, parameter) in enumerate(self._saved_tensors().items()):
            tensor = self._full(parameter)
            if tensor.shape != _shape(parameter):
                mismatch = f'{name} is {tuple(_shape(parameter))}, but was gathered as {tuple(tensor.shape)}'
            if keep(number):
                tensors[name] = tensor.detach().to('cpu', copy=copy)
        if mismatch:  # raised after the loop, because the other ranks gather too
            raise CheckpointError(f'no checkpoint was written: {mismatch}; earlier ones are unchanged')
        return tensors

    def optimizer_states(
        self, keep: Callable[[int], bool] = lambda _: True, copy: bool = False
    ) -> dict[int, dict[str, Any]]:
        """Return the optimizer state on the CPU by number of the trained parameter, for numbers that `keep` accepts.

        With `copy`, no tensor shares memory with the optimizer.
        """
        states_by_number = {}
        for number, parameter in enumerate(self._trained()):
            states = self.strategy.optimizer_state(parameter)
            if keep(number) and states:
                states_by_number[number] = {
                    k: v.to('cpu', copy=copy) if torch.is_tensor(v) else v for k, v in states.items()
                }
        return states_by_number

    def names(self) -> set[str]:
        """Return the names of the tensors that `get` returns."""
        return set(self._saved_tensors())

    def set(self, state: dict[str, torch.Tensor], origin: Path) -> None:
        """Load tensors that `get` returned.

        Raises:
            CheckpointError: The names or shapes belong to another model or adapter.
        """
        tensors = self._saved_tensors()
        # Checkpoints of earlier versions have no buffers. Buffers are not trained, so those of the base are correct.
        buffers = {name for name, tensor in tensors.items() if not isinstance(tensor, torch.nn.Parameter)}
        missing, extra = sorted(set(tensors) - set(state) - buffers), sorted(set(state) - set(tensors))
        if missing or extra:
            example = (missing or extra)[0]
            raise CheckpointError(
                f'{origin} does not fit this model: it lacks {len(missing)} tensors and has {len(extra)} '
                f'unknown ones, such as {example}. Was it written with another model or another `lora`?'
            )
        tensors = {name: tensor for name, tensor in tensors.items() if name in state}
        for name, parameter in tensors.items():
            shape = _shape(parameter)
            if shape != state[name].shape:
                raise CheckpointError(
                    f'{origin} does not fit this model: {name} has shape {tuple(state[name].shape)} in the file '
                    f'and {tuple(shape)} in the model. Was it written with another `lora.r` or another model?'
                )
        for name, tensor in tensors.items():
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
        """Return the unsharded value of a parameter or buffer; buffers are never sharded."""
        return self.strategy.full_tensor(tensor) if isinstance(tensor, torch.nn.Parameter) else tensor

    def _saved_tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters and persistent buffers that are saved, by the names they are saved under."""
        reshard(self.llm)
        if self.is_adapter:
            # Tied weights under each of their names, because peft looks up modules by name.
            names = dict(self.llm.named_buffers(remove_duplicate=False))
            names |= dict(self.llm.named_parameters(remove_duplicate=False))
            # With save_embedding_layers, peft would query the hub for the base model.
            return get_peft_model_state_dict(self.llm, state_dict=names, save_embedding_layers=False)
        return dict(self.llm.named_parameters()) | persistent_buffers(self.llm)


def persistent_buffers(llm: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers of `llm` that belong to its weights, by name; others are computed during construction."""
    saved = llm.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in llm.named_buffers() if name in saved}


def _shape(parameter: torch.Tensor) -> torch.Size:
    return getattr(parameter, 'ds_shape', parameter.shape)  # ZeRO-3 replaces a parameter by an empty tensor
