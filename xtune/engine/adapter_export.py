"""Exports the adapter of each checkpoint as a Hugging Face folder beside it."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ..hf_format.writer import ExportInfo, write_adapter, write_weights
from ..methods.residual_init import as_plain_lora, initial_adapter_state
from ..parallel.collectives import rank
from . import checkpoint_writer
from .probe_recorder import ProbeRecorder
from .trained_state import TrainedState


class AdapterExport:
    """Writes an adapter in the format of peft. All ranks call it; rank 0 writes.

    Args:
        state: Gathers the adapter tensors.
        info: The contents of the folder besides tensors and tokenizer.
        tokenizer: The base model's tokenizer.
        probe_recorder: Has the probe logits of the latest checkpoint.
    """

    def __init__(
        self, state: TrainedState, info: ExportInfo, tokenizer: PreTrainedTokenizerBase, probe_recorder: ProbeRecorder
    ) -> None:
        self.state, self.info, self.tokenizer, self.probe_recorder = state, info, tokenizer, probe_recorder

    def __call__(self, checkpoint: Path) -> None:
        """Write the folder `NAME_hf` beside `checkpoint`, which is `NAME.pth`.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        trained = self.state.get()
        if rank() == 0:
            with checkpoint_writer.staged_folder(checkpoint.with_name(f'{checkpoint.stem}_hf')) as folder:
                self.write(folder, trained)

    def write(self, folder: Path, trained: dict[str, torch.Tensor]) -> None:
        """Write the gathered tensors `trained` into `folder`, with config, tokenizer and probe logits."""
        write_adapter(folder, *self._plain_lora(trained), self.tokenizer, self.probe_recorder.last)

    def write_weights(self, folder: Path, trained: dict[str, torch.Tensor]) -> None:
        """Write the gathered tensors `trained` and peft's config into `folder`."""
        write_weights(folder, *self._plain_lora(trained))

    def _plain_lora(self, trained: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], ExportInfo]:
        return as_plain_lora(trained, initial_adapter_state(self.state.llm).get('initial_adapter'), self.info)
