"""What is trained, as a state dict: the adapter in peft's names, or all weights under the model's own."""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

from ..errors import CheckpointError


class TrainedState:
    """Reads and writes the trained part of a model."""

    def __init__(self, llm: torch.nn.Module) -> None:
        self.llm = llm

    def get(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors on the CPU; those of an adapter are megabytes, the frozen base is not in it."""
        if isinstance(self.llm, PeftModel):
            # Asking for embedding layers would make peft look the base model up on the hub.
            state = get_peft_model_state_dict(self.llm, save_embedding_layers=False)
        else:
            state = dict(self.llm.named_parameters())
        return {name: tensor.detach().cpu() for name, tensor in state.items()}

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
        if isinstance(self.llm, PeftModel):
            set_peft_model_state_dict(self.llm, state)
            return
        parameters = dict(self.llm.named_parameters())
        with torch.no_grad():
            for name, tensor in state.items():
                parameters[name].copy_(tensor)
