"""Which models rows can be split for: what is known from the config, then a trial against whole rows."""

import math

import torch

from ..config.sections import Strategy
from ..errors import ConfigError, ModelError
from ..utils.parity_inputs import trial_ids, trial_width
from .collectives import all_reduce_sum, is_distributed
from .ulysses import SequenceParallelGroup, base_of

# Kinds of layers whose attention goes through transformers' AttentionInterface.
LAYERS = ('full_attention', 'sliding_attention')
# Rotary embeddings whose frequencies depend on the longest position that a process sees.
LENGTH_BOUND = ('dynamic', 'longrope')
# Columns of each process in the trial.
TRIAL = 16
# Largest difference from whole rows, as a share of the logits' norm. Splitting wrongly gives about 1.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
_OFF = 'set strategy.sequence_parallel_size=1'


def check_devices(size: int, devices: int) -> None:
    """Refuse a size that does not divide the number of devices.

    Raises:
        ConfigError: It does not.
    """
    if devices % size:
        count = f'{devices} processes' if devices > 1 else 'one process'
        raise ConfigError(
            f'strategy.sequence_parallel_size={size} does not divide the devices of this run, which has {count}; '
            f'start it with NPROC_PER_NODE={size} or a multiple of it, or {_OFF}'
        )


def sequence_parallel_group(
    llm: torch.nn.Module, dtype: torch.dtype, device: torch.device, strategy: Strategy, max_length: int
) -> SequenceParallelGroup | None:
    """Return the processes that split rows with this one, and let `llm` exchange with them; None: rows are whole.

    Args:
        llm: The model.
        dtype: The compute type.
        device: Where it computes.
        strategy: Says how many split a row.
        max_length: Tokens of the longest row.

    Raises:
        ModelError: The model does not work with split rows.
    """
    size = strategy.sequence_parallel_size
    if size == 1 or not is_distributed():
        return None
    config = base_of(llm).config.get_text_config()
    _check_config(config, size, max_length)
    team = SequenceParallelGroup(llm, size, strategy.timeout)
    if team.model.config._attn_implementation == team.inner:
        raise _refusal(config, 'its attention does not go through the AttentionInterface of transformers')
    if strategy.name.startswith('zero3'):  # weights are in slices already that only DeepSpeed's engine joins
        print('note: rows are split without the trial against whole rows, which a run with strategy fsdp2 makes')
    else:
        _try(llm, team, dtype, device)
    return team


def _check_config(config, size: int, max_length: int) -> None:
    inner, heads = config._attn_implementation, config.num_attention_heads
    if inner not in ('sdpa', 'eager') and not inner.startswith('flash_attention'):
        raise _refusal(config, f'its attention is {inner!r}, which is none of sdpa, eager and flash_attention')
    if heads % size:
        fits = [n for n in range(2, heads + 1) if heads % n == 0]
        raise ModelError(
            f'the model has {heads} attention heads, which strategy.sequence_parallel_size={size} does not divide; '
            f'sizes that do are {", ".join(map(str, fits))}'
        )
    strange = sorted(set(getattr(config, 'layer_types', None) or ()) - set(LAYERS))
    if strange:
        raise _refusal(config, f'it has layers of kind {strange[0]}')
    rope = getattr(config, 'rope_parameters', None) or {}
    for values in (rope, *(v for v in rope.values() if isinstance(v, dict))):
        limit = values.get('original_max_position_embeddings') or config.max_position_embeddings
        if values.get('rope_type') in LENGTH_BOUND and max_length > limit:
            raise _refusal(
                config, f'its {values["rope_type"]} RoPE changes beyond {limit:,} tokens with the length of the row'
            )


def _refusal(config, reason: str) -> ModelError:
    return ModelError(f'rows of a {config.model_type} model cannot be split over devices: {reason}; {_OFF}')


@torch.no_grad()
def _try(llm: torch.nn.Module, team: SequenceParallelGroup, dtype: torch.dtype, device: torch.device) -> None:
    """Compare the logits of a packed row, split, with those of the same row in one process."""
    training, config = llm.training, team.model.config.get_text_config()
    columns = trial_width(config, TRIAL, team.size)
    width = columns * team.size
    ids_BS = trial_ids(width, config.vocab_size, device)
    first = width // 2 - 3  # the second sample begins in one process' columns and ends in another's
    positions_BS = torch.cat([torch.arange(first), torch.arange(width - first)])[None].to(device)
    own = slice(team.part * columns, (team.part + 1) * columns)
    llm.eval()
    try:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            with team.whole_rows():
                whole = llm(input_ids=ids_BS, position_ids=positions_BS, use_cache=False).logits[:, own].float()
            more = dict(use_cache=False, **team.arguments(positions_BS))
            split = llm(input_ids=ids_BS[:, own], position_ids=positions_BS[:, own], **more).logits.float()
    except TypeError as error:
        raise _refusal(config, str(error)) from error
    finally:
        llm.train(training)
    # Over all processes, so that all come to the same end.
    wrong, total = all_reduce_sum(torch.stack([(split - whole).square().sum(), whole.square().sum()])).tolist()
    difference = math.sqrt(wrong / total)
    if not difference <= TOLERANCE[dtype]:
        raise _refusal(
            config, f'in a trial its logits differ by {difference:.2g} of their norm from those of whole rows'
        )
