"""Micro-batches: the tensors of one forward pass.

Legend: B sequences, S tokens of the longest one (`seq_len`), C - 1 segments, K targets.

    input_ids        [B, S]  token ids, padded at the end
    position_ids     [B, S]  restart at 0 for every sample, so packed samples do not attend to each other; else None
    targets          [B, S]  the next token of the same sample where it is trained, else -100 (already shifted)
    target_indices   [K]     flat indices of the targets that are not -100
    cu_seqlens       [C]     int32, starts of the segments in the flattened batch, then B * S at least once

There is no attention mask: attention is causal, and padding is at the end, in a segment of its own.

Under sequence parallelism, `input_ids`, `position_ids` and `targets` are this rank's shard [B, S / shards].
`position_ids` and `full_position_ids` [B, S] (positions of the full sequences) are then always present.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

IGNORE_INDEX = -100
# Without packing, compiled layers get sequence lengths padded to a multiple of this.
PAD_MULTIPLE = 64
# Minimum number of segments in `cu_seqlens`, so that most batches have the same shape.
MIN_SEGMENTS = 16


@dataclass(frozen=True)
class SequenceShard:
    """The contiguous part of every sequence that this rank holds: shard `index` of `count` equal ones."""

    index: int = 0
    count: int = 1

    def slice(self, seq_len: int) -> slice:
        """Return this shard's positions in sequences of `seq_len` tokens, which is a multiple of `count`."""
        size = seq_len // self.count
        return slice(self.index * size, (self.index + 1) * size)


FULL_SEQUENCE = SequenceShard()


@dataclass(frozen=True)
class Padding:
    """Padded sequence length: at least `min_length` tokens, and a multiple of `multiple`.

    `with_positions`: create `position_ids` even where no sequence is packed, for batches of one static structure.
    """

    min_length: int = 1
    multiple: int = 1
    with_positions: bool = False


PAD_TO_LONGEST = Padding()


@dataclass(kw_only=True)
class MicroBatch:
    """The tensors of one forward pass on one rank (shapes: see the module), and where their rows come from.

    Attributes:
        input_ids: Token ids [B, S].
        position_ids: Positions [B, S]; None if every sequence is one sample.
        targets: Next tokens [B, S], or -100.
        target_indices: Indices [K] into the flattened targets, computed on the CPU to avoid a GPU sync.
        num_targets: Targets other than -100, in this rank's shard.
        num_tokens: Tokens without padding, in this rank's shard.
        places: File and row number of each sample, for messages.
        cu_seqlens: Segment starts [C] in the full sequences, padded with empty segments to a power of two.
        max_seqlen: Upper bound of the longest segment in tokens: rounded up to a power of two.
        full_position_ids: Positions [B, S] of the full sequences, only under sequence parallelism.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor | None = None
    targets: torch.Tensor
    target_indices: torch.Tensor
    num_targets: int
    num_tokens: int
    places: list[str]
    cu_seqlens: torch.Tensor
    max_seqlen: int
    full_position_ids: torch.Tensor | None = None

    @classmethod
    def unpacked(cls, input_ids: torch.Tensor, targets: torch.Tensor) -> 'MicroBatch':
        """Return a batch of one sample per sequence: `input_ids` [B, S] and `targets` [B, S], -100 where untrained."""
        batch_size, seq_len = input_ids.shape
        target_indices = (targets.flatten() != IGNORE_INDEX).nonzero().squeeze(1)
        cu_seqlens, max_seqlen = segments([np.array([0, seq_len])] * batch_size, seq_len)
        return cls(
            input_ids=input_ids,
            targets=targets,
            target_indices=target_indices,
            num_targets=len(target_indices),
            num_tokens=input_ids.numel(),
            places=[],
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
        )

    def to(self, device: torch.device) -> 'MicroBatch':
        """Return the batch on `device`."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> 'MicroBatch':
        """Return the batch in pinned memory."""
        return self._map_tensors(torch.Tensor.pin_memory)

    def _map_tensors(self, function: Callable[[torch.Tensor], torch.Tensor]) -> 'MicroBatch':
        return replace(self, **{name: function(t) for name, t in vars(self).items() if torch.is_tensor(t)})


def segments(starts: list[np.ndarray], seq_len: int) -> tuple[torch.Tensor, int]:
    """Return `cu_seqlens` int32 [C] and `max_seqlen` of sequences padded to `seq_len` tokens and laid end to end.

    Args:
        starts: Per sequence, the positions at which a segment starts, and the position at which padding starts.
        seq_len: Tokens of each padded sequence.
    """
    total = len(starts) * seq_len
    offsets = [number * seq_len + positions for number, positions in enumerate(starts)]
    boundaries = np.unique(np.append(np.concatenate(offsets), total))
    max_seqlen = min(_power_of_two(int(np.diff(boundaries).max())), seq_len)
    count = max(_power_of_two(len(boundaries) - 1), MIN_SEGMENTS)
    cu_seqlens = np.full(count + 1, total, dtype=np.int32)
    cu_seqlens[: len(boundaries)] = boundaries
    return torch.from_numpy(cu_seqlens), max_seqlen


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()
