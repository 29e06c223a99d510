"""Arguments that tell the recurrent layers of transformers where packed samples begin.

Mamba, linear attention and short convolutions carry a state along the sequence, and do not read position_ids. Their
kernels (`mamba_ssm`, `causal_conv1d`, `fla`) take the arguments below; without these packages transformers refuses or
ignores them.

Legend: B sequences, S tokens of a sequence, C entries of cu_seqlens.
"""

from dataclasses import replace

import torch

from ..compat.torch_private import maybe_mark_dynamic
from ..data.batches import MicroBatch


def flatten_packed(batch: MicroBatch) -> MicroBatch:
    """Return a packed `batch` as one sequence [1, B * S], which cu_seqlens need; an unpacked one is returned as is."""
    if batch.position_ids is None or len(batch.input_ids) == 1:
        return batch
    names = ('input_ids', 'position_ids', 'targets')
    return replace(batch, **{name: getattr(batch, name).reshape(1, -1) for name in names})


def sample_boundary_kwargs(batch: MicroBatch) -> dict[str, torch.Tensor | int]:
    """Return the arguments of the model's call for a packed batch; none for one sample per sequence.

    seq_idx int32 [1, S] is the number of each token's sample; cu_seqlens are int32 [C].
    """
    if batch.position_ids is None:
        return {}
    if batch.borders.device.type != 'cpu':
        maybe_mark_dynamic(batch.borders, 0)  # layers compile once for any number of samples
    return dict(
        seq_idx=(batch.position_ids == 0).cumsum(1).sub(1).int(),
        cu_seq_lens_q=batch.borders,
        cu_seq_lens_k=batch.borders,
        max_length_q=batch.longest,
        max_length_k=batch.longest,
    )
