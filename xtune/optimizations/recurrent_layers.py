"""Arguments by which layers of transformers that carry a state over a row learn where samples begin.

Mamba, linear attention and short convolutions do not read position_ids. Their kernels (`mamba_ssm`, `causal_conv1d`,
`fla`) take the arguments below; without these packages transformers refuses them or leaves them out.

Legend: B sequences, S tokens of each, C borders.
"""

from dataclasses import replace
from typing import Any

import torch

from ..data.batches import MicroBatch


def in_one_row(batch: MicroBatch) -> MicroBatch:
    """Return a packed `batch` with its sequences in one row [1, B * S], as cu_seqlens ask for; others as they are."""
    if batch.position_ids is None or len(batch.input_ids) == 1:
        return batch
    rows = {name: getattr(batch, name).reshape(1, -1) for name in ('input_ids', 'position_ids', 'targets')}
    return replace(batch, **rows)


def boundary_arguments(batch: MicroBatch) -> dict[str, Any]:
    """Return the arguments for packed rows: seq_idx int32 [1, S], the number of the sample that each token belongs to,
    and cu_seqlens int32 [C]; none for rows of one sample each."""
    if batch.position_ids is None:
        return {}
    if batch.cu_seqlens.device.type != 'cpu':
        torch._dynamo.maybe_mark_dynamic(batch.cu_seqlens, 0)  # layers compile once for any number of samples
    return dict(
        seq_idx=(batch.position_ids == 0).cumsum(1).sub(1).int(),
        cu_seq_lens_q=batch.cu_seqlens,
        cu_seq_lens_k=batch.cu_seqlens,
        max_length_q=batch.max_seqlen,
        max_length_k=batch.max_seqlen,
    )
