"""The Hugging Face folder of an adapter, written beside each checkpoint."""

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
    """Writes the adapter of `state` as plain peft loads it. Every rank calls it; rank 0 writes.

    Args:
        state: Gathers the adapter.
        info: What the folder needs besides the tensors.
        tokenizer: The base model's tokenizer.
        probe_recorder: Has the probe logits of the newest checkpoint.
    """

    def __init__(
        self, state: TrainedState, info: ExportInfo, tokenizer: PreTrainedTokenizerBase, probe_recorder: ProbeRecorder
    ) -> None:
        self.state, self.info, self.tokenizer, self.probe_recorder = state, info, tokenizer, probe_recorder

    def __call__(self, checkpoint: Path) -> None:
        """Write the folder of `checkpoint`, which has its name with `_hf`.

        Raises:
            CheckpointError: It cannot be written.
        """
        trained = self.state.get()
        if rank() == 0:
            with checkpoint_writer.staged_folder(checkpoint.with_name(f'{checkpoint.stem}_hf')) as folder:
                self.write(folder, trained)

    def write(self, folder: Path, trained: dict[str, torch.Tensor]) -> None:
        """Write the gathered tensors `trained` into `folder`, and all that an adapter needs besides."""
        write_adapter(folder, *self._ordinary(trained), self.tokenizer, self.probe_recorder.last)

    def write_weights(self, folder: Path, trained: dict[str, torch.Tensor]) -> None:
        """Write the gathered tensors `trained` and peft's config into `folder`."""
        write_weights(folder, *self._ordinary(trained))

    def _ordinary(self, trained: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], ExportInfo]:
        return as_plain_lora(trained, initial_adapter_state(self.state.llm).get('initial_adapter'), self.info)
