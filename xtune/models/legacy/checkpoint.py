"""The description of a 2023 remote-code checkpoint: native config, tensor names, and differences from native models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .tensors import Table


@dataclass(frozen=True)
class LegacyCheckpoint:
    """A folder with a 2023 remote-code checkpoint.

    Attributes:
        folder: The folder.
        variant: One of variants.NAMES.
        original: The content of its config.json.
        config: The native config.
        table: Tensor names of the checkpoint -> native names.
        qkv_rows: Rows of q, k and v in a fused projection.
        norm_head: Whether the original code normalizes the rows of lm_head.
        head_from_embedding: Whether lm_head is untied in the native class and tied in the checkpoint.
        note: How the original code differs beyond `trained_length` tokens; '' if it does not.
    """

    folder: Path
    variant: str
    original: dict[str, Any]
    config: PreTrainedConfig
    table: Table
    qkv_rows: tuple[int, int, int]
    norm_head: bool = False
    head_from_embedding: bool = False
    note: str = ''

    @property
    def trained_length(self) -> int:
        """Context length, in tokens, up to which native and original code compute the same."""
        return self.config.max_position_embeddings
