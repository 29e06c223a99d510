"""Lets a model attend without masks, over packed rows by where samples begin, if a trial shows that it may."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from ..data.batches import MULTIPLE, MicroBatch
from ..errors import ModelError
from ..parallel.sequence import base_of
from .attention import KERNEL, LOOP, NEEDS_WHOLE_ROWS, ROWS, TAKES
from .layers import layers_of
from .quiet import quiet

# Samples of the trial's row.
TRIAL = (5, 11)
# Largest difference from a mask, as a share of the norm. Samples that see each other give about 1.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
# Kinds of layers that attend as the functions here do, or not at all.
KINDS = ('full_attention', 'sliding_attention', 'linear_attention')


class PackedAttention:
    """The attention of `llm` over rows.

    Args:
        llm: The model, whose attention is replaced.
        name: One of transformers' AttentionInterface that takes `arguments`.
    """

    def __init__(self, llm: torch.nn.Module, name: str) -> None:
        self.model, self.name = base_of(llm), name
        self.inner: str = self.model.config._attn_implementation
        self.model.register_forward_pre_hook(_refuse_mask, with_kwargs=True)
        self._attend_with(name)

    def arguments(self, batch: MicroBatch) -> dict[str, Any]:
        """Return what the model's call takes beside the tokens of `batch`."""
        if self.name == ROWS:
            return {}
        if batch.borders.device.type != 'cpu':
            # Layers compile once for any number of samples.
            torch._dynamo.maybe_mark_dynamic(batch.borders, 0)
        return dict(segment_borders=batch.borders, longest_segment=batch.longest)

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Let the model attend as it did, as generation needs."""
        self._attend_with(self.inner)
        try:
            yield
        finally:
            self._attend_with(self.name)

    def _attend_with(self, name: str) -> None:
        with quiet():
            self.model.set_attn_implementation(name)


def _refuse_mask(model: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
    """Refuse a mask where transformers would leave it out: it knows no mask function of ROWS."""
    if given.get('attention_mask') is not None and model.config._attn_implementation == ROWS:
        raise ModelError(NEEDS_WHOLE_ROWS)


def packed_attention(
    llm: torch.nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    max_length: int,
    context: AbstractContextManager,
    packed: bool = True,
) -> PackedAttention | None:
    """Let `llm` attend without masks, and return how; None: it is as before, for it or the device cannot.

    Args:
        llm: The model.
        dtype: The compute type.
        device: Where it computes.
        max_length: Tokens of the longest row.
        context: In which the model computes.
        packed: Rows hold samples that do not see each other.
    """
    model = base_of(llm)
    name = chosen(model.config, model.config._attn_implementation, dtype, device.type, max_length, packed)
    if name is None:
        return None
    attention = PackedAttention(llm, name)
    if model.config._attn_implementation == attention.inner or not _agrees(llm, attention, dtype, device, context):
        attention._attend_with(attention.inner)
        return None
    return attention


def chosen(
    model_config: Any, implementation: str, dtype: torch.dtype, device: str, max_length: int, packed: bool = True
) -> str | None:
    """Return the attention that a model may have by its config on a `device` of this type instead of `implementation`;
    None: none. The trial comes on top. For the other arguments see `packed_attention`."""
    config = model_config.get_text_config()
    if implementation != 'sdpa' or _has_dropout(config) or not _kinds_fit(config):
        return None
    if device == 'cpu':
        return LOOP if packed else None  # nothing waits for a CPU
    if device != 'cuda':
        return None
    window = getattr(config, 'sliding_window', None)
    widest = max_length if packed else -(-max_length // MULTIPLE) * MULTIPLE
    narrow = bool(window) and window < widest
    if not packed and not narrow:
        return ROWS
    takes = dtype in (torch.bfloat16, torch.float16) and TAKES and not (narrow and 'window_size' not in TAKES)
    return KERNEL if takes else None


def _has_dropout(config: Any) -> bool:
    """Return whether attention weights are dropped, by the names that models give it."""
    return any(
        bool(v) for n, v in vars(config).items() if n.startswith('att') and ('dropout' in n or n.endswith('drop'))
    )


def _kinds_fit(config: Any) -> bool:
    kinds = getattr(config, 'layer_types', None) or ()
    return all(kind in KINDS or 'attention' not in kind for kind in kinds)


def _agrees(
    llm: torch.nn.Module,
    packed: PackedAttention,
    dtype: torch.dtype,
    device: torch.device,
    context: AbstractContextManager,
) -> bool:
    """Return whether the logits of a row are those under a mask, and the backward pass runs too."""
    training = llm.training
    llm.eval()
    try:
        with context, torch.enable_grad():
            lengths = TRIAL if packed.name != ROWS else (sum(TRIAL),)
            found = [_tried(llm, packed, lengths, device)]
            with packed.as_before():
                found.append(_tried(llm, None, lengths, device))
    except (AttributeError, TypeError, ValueError, RuntimeError, ModelError):  # models of any author
        return False
    finally:
        llm.train(training)
    (new, *slopes), (old, *_) = found
    finite = all(slope.isfinite().all() for slope in slopes)
    return finite and ((new - old).norm() <= TOLERANCE.get(dtype, 0.1) * old.norm()).item()


def _tried(
    llm: torch.nn.Module, packed: PackedAttention | None, lengths: tuple[int, ...], device: torch.device
) -> list[torch.Tensor]:
    """Return the logits of a row of samples of these `lengths`, and the gradients of two weights of the layers."""
    width = sum(lengths)
    ids_BS = torch.arange(1, 1 + width, device=device)[None] % base_of(llm).config.get_text_config().vocab_size
    positions_BS = torch.cat([torch.arange(n) for n in lengths])[None].to(device)
    more = {}
    if packed is not None and packed.name != ROWS:
        borders = torch.tensor([0, lengths[0], width, width], dtype=torch.int32, device=device)
        more = dict(segment_borders=borders, longest_segment=width)
    logits_BSV = llm(input_ids=ids_BS, position_ids=positions_BS, use_cache=False, **more).logits.float()
    # Of the first layers, so that the backward pass goes through all; autograd.grad adds to no gradient.
    first = [p for layer in layers_of(llm) for p in layer.parameters() if p.requires_grad][:2]
    slopes = torch.autograd.grad(logits_BSV.square().mean(), first, allow_unused=True) if first else ()
    return [logits_BSV.detach(), *(slope for slope in slopes if slope is not None)]
