"""What is trained, as a state dict: the adapter in peft's names, or all weights under the model's own."""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict

from ..errors import CheckpointError
from ..parallel.fsdp import like, whole


class TrainedState:
    """Reads and writes the trained part of a model."""

    def __init__(self, llm: torch.nn.Module) -> None:
        self.llm = llm

    def get(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors, whole and on the CPU; every process of the run must ask for them.

        Those of an adapter are megabytes; the frozen base is not in it.
        """
        return {name: whole(tensor.detach()).cpu() for name, tensor in self._own().items()}

    def _own(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors themselves, as they lie in this process."""
        if isinstance(self.llm, PeftModel):
            # Asking for embedding layers would make peft look the base model up on the hub.
            return get_peft_model_state_dict(self.llm, save_embedding_layers=False)
        return dict(self.llm.named_parameters())

    def set(self, state: dict[str, torch.Tensor], origin: Path) -> None:
        """Load tensors that `get` returned.

        Raises:
            CheckpointError: Names or shapes are those of another model or adapter.
        """
        mine = self.get()
        missing, extra = sorted(set(mine) - set(state)), sorted(set(state) - set(mine))
        if missing or extra:
            example = (missing or extra)[0]
            raise CheckpointError(
                f'{origin} does not fit this model: {len(missing)} tensors are missing from it and {len(extra)} '
                f'unknown, such as {example}. Was it written with another model or another `lora`?'
            )
        for name, tensor in mine.items():
            if tensor.shape != state[name].shape:
                raise CheckpointError(
                    f'{origin} does not fit this model: {name} is {tuple(state[name].shape)} there and '
                    f'{tuple(tensor.shape)} here. Was it written with another `lora.r` or another model?'
                )
        with torch.no_grad():
            for name, own in self._own().items():
                own.copy_(like(state[name], own))
