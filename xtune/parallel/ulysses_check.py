"""Which models support sequence parallelism: what the config tells, then a parity check against full sequences."""

import math

import torch
from transformers import PreTrainedConfig

from ..compat.transformers_private import attention_of
from ..config.sections import Strategy
from ..config.strategy_traits import traits_of
from ..errors import ConfigError, ModelError
from ..utils.language_model import base_of
from ..utils.parity_inputs import parity_token_ids, tokens_per_sample
from . import ulysses_attention  # noqa: F401  registers the attention function
from .collectives import all_reduce_sum, is_distributed
from .ulysses import SequenceParallelGroup

# Layer types whose attention goes through transformers' AttentionInterface.
LAYER_TYPES = ('full_attention', 'sliding_attention')
# RoPE types whose frequencies depend on the largest position in a forward pass of a rank.
LENGTH_DEPENDENT_ROPE = ('dynamic', 'longrope')
# Tokens of each rank's shard in the parity check.
SHARD_TOKENS = 16
# Largest difference from full sequences, relative to the norm of the logits. Wrong sharding gives about 1.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
_TURN_OFF = 'set strategy.sequence_parallel_size=1'


def check_devices(size: int, devices: int) -> None:
    """Refuse a group size that does not divide the number of devices.

    Raises:
        ConfigError: It does not.
    """
    if devices % size:
        count = f'{devices} processes' if devices > 1 else 'one process'
        raise ConfigError(
            f'strategy.sequence_parallel_size={size} does not divide the devices of this run, which has {count}; '
            f'start it with NPROC_PER_NODE={size} or a multiple of it, or {_TURN_OFF}'
        )


def sequence_parallel_group(
    llm: torch.nn.Module, dtype: torch.dtype, device: torch.device, strategy: Strategy, max_length: int
) -> SequenceParallelGroup | None:
    """Return the sequence-parallel group of this rank, and replace the attention of `llm`; None: no sequence
    parallelism.

    Args:
        llm: The model.
        dtype: The compute type.
        device: The device it computes on.
        strategy: Has the size of the group.
        max_length: Tokens of the longest sequence.

    Raises:
        ModelError: The model does not support sequence parallelism.
    """
    size = strategy.sequence_parallel_size
    if size == 1 or not is_distributed():
        return None
    config = base_of(llm).config.get_text_config()
    _check_config(config, size, max_length)
    group = SequenceParallelGroup(llm, size, strategy.timeout)
    if not group.is_installed:
        raise _refusal(config, 'its attention does not go through the AttentionInterface of transformers')
    if traits_of(strategy.name).zero_stage == 3:  # only DeepSpeed's engine gathers the sharded weights
        print('note: skipped the sequence-parallel parity check (ZeRO-3); a run with strategy fsdp2 makes it')
    else:
        _check_parity(llm, group, dtype, device)
    return group


def _check_config(config: PreTrainedConfig, size: int, max_length: int) -> None:
    attention, heads = attention_of(config), config.num_attention_heads
    if attention not in ('sdpa', 'eager') and not attention.startswith('flash_attention'):
        raise _refusal(config, f'its attention is {attention!r}, not sdpa, eager or flash_attention')
    if heads % size:
        divisors = [n for n in range(2, heads + 1) if heads % n == 0]
        raise ModelError(
            f'the model has {heads} attention heads, which strategy.sequence_parallel_size={size} does not divide; '
            f'sizes that do are {", ".join(map(str, divisors))}'
        )
    unsupported = sorted(set(getattr(config, 'layer_types', None) or ()) - set(LAYER_TYPES))
    if unsupported:
        raise _refusal(config, f'it has layers of type {unsupported[0]}')
    rope = getattr(config, 'rope_parameters', None) or {}
    for values in (rope, *(v for v in rope.values() if isinstance(v, dict))):
        limit = values.get('original_max_position_embeddings') or config.max_position_embeddings
        if values.get('rope_type') in LENGTH_DEPENDENT_ROPE and max_length > limit:
            raise _refusal(
                config, f'beyond {limit:,} tokens its {values["rope_type"]} RoPE changes with the sequence length'
            )


def _refusal(config: PreTrainedConfig, reason: str) -> ModelError:
    return ModelError(f'a {config.model_type} model does not support sequence parallelism: {reason}; {_TURN_OFF}')


@torch.no_grad()
def _check_parity(llm: torch.nn.Module, group: SequenceParallelGroup, dtype: torch.dtype, device: torch.device) -> None:
    """Compare the logits of a sharded packed sequence with those of the full sequence on one rank."""
    training, config = llm.training, group.model.config.get_text_config()
    shard_len = tokens_per_sample(config, SHARD_TOKENS, group.size)
    seq_len = shard_len * group.size
    ids_BS = parity_token_ids(seq_len, config.vocab_size, device)
    first = seq_len // 2 - 3  # the second sample begins in one rank's shard and ends in another's
    positions_BS = torch.cat([torch.arange(first), torch.arange(seq_len - first)])[None].to(device)
    shard = slice(group.sp_rank * shard_len, (group.sp_rank + 1) * shard_len)
    llm.eval()
    try:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            with group.full_sequences():
                full = llm(input_ids=ids_BS, position_ids=positions_BS, use_cache=False).logits[:, shard].float()
            kwargs = dict(use_cache=False, **group.model_kwargs(positions_BS))
            sharded = llm(input_ids=ids_BS[:, shard], position_ids=positions_BS[:, shard], **kwargs).logits.float()
    except TypeError as error:
        raise _refusal(config, str(error)) from error
    finally:
        llm.train(training)
    # Summed over all ranks, so that all come to the same verdict.
    squares = torch.stack([(sharded - full).square().sum(), full.square().sum()])
    wrong, total = all_reduce_sum(squares).tolist()
    difference = math.sqrt(wrong / total)
    if not difference <= TOLERANCE[dtype]:
        raise _refusal(
            config,
            f'in a parity check its logits differ from those of full sequences by {difference:.2g} of their norm',
        )
