"""Maps between the tensor names of 2023 remote-code checkpoints and of native models, and the split of fused tensors.

A table maps a module of the checkpoint to the native modules that its rows are split into, in order; `{n}` is the
layer. Weights are [out, in] in both, so they are split along dimension 0 and never transposed.
"""

import re
from collections.abc import Iterator

import torch
import torch.nn.functional as F

Table = dict[str, tuple[str, ...]]

_LAYER = 'model.layers.{n}.'
_QKV = tuple(f'{_LAYER}self_attn.{part}_proj' for part in 'qkv')


def _unchanged(*modules: str) -> Table:
    return {module: (module,) for module in modules}


_OUTSIDE_LAYERS = _unchanged('model.embed_tokens', 'model.norm', 'lm_head')
_INSIDE_LAYERS = _unchanged(
    *(f'{_LAYER}{name}' for name in ('self_attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj')),
    *(f'{_LAYER}{name}' for name in ('input_layernorm', 'post_attention_layernorm')),
)

LLAMA: Table = {**_OUTSIDE_LAYERS, **_INSIDE_LAYERS, **_unchanged(*_QKV)}

BAICHUAN: Table = {**_OUTSIDE_LAYERS, **_INSIDE_LAYERS, f'{_LAYER}self_attn.W_pack': _QKV}

_BLOCK = 'transformer.h.{n}.'
QWEN: Table = {
    'transformer.wte': ('model.embed_tokens',),
    'transformer.ln_f': ('model.norm',),
    'lm_head': ('lm_head',),
    f'{_BLOCK}ln_1': (f'{_LAYER}input_layernorm',),
    f'{_BLOCK}ln_2': (f'{_LAYER}post_attention_layernorm',),
    f'{_BLOCK}attn.c_attn': _QKV,
    f'{_BLOCK}attn.c_proj': (f'{_LAYER}self_attn.o_proj',),
    f'{_BLOCK}mlp.w2': (f'{_LAYER}mlp.gate_proj',),  # the activation function is applied to w2, not to w1
    f'{_BLOCK}mlp.w1': (f'{_LAYER}mlp.up_proj',),
    f'{_BLOCK}mlp.c_proj': (f'{_LAYER}mlp.down_proj',),
}

_ENCODER = 'transformer.encoder.layers.{n}.'
CHATGLM: Table = {
    'transformer.embedding.word_embeddings': ('model.embed_tokens',),
    'transformer.encoder.final_layernorm': ('model.norm',),
    'transformer.output_layer': ('lm_head',),
    f'{_ENCODER}input_layernorm': (f'{_LAYER}input_layernorm',),
    f'{_ENCODER}post_attention_layernorm': (f'{_LAYER}post_attention_layernorm',),
    f'{_ENCODER}self_attention.query_key_value': _QKV,
    f'{_ENCODER}self_attention.dense': (f'{_LAYER}self_attn.o_proj',),
    f'{_ENCODER}mlp.dense_h_to_4h': (f'{_LAYER}mlp.gate_up_proj',),  # both: first half gate, second half up
    f'{_ENCODER}mlp.dense_4h_to_h': (f'{_LAYER}mlp.down_proj',),
}

LM_HEAD, EMBEDDING = 'lm_head.weight', 'model.embed_tokens.weight'
_BUFFERS = ('rotary_emb.inv_freq', 'rotary_pos_emb.inv_freq')


def is_buffer(name: str) -> bool:
    """Return whether a checkpoint tensor is a computed buffer, which is not loaded."""
    return name.endswith(_BUFFERS)


def native_names(table: Table, name: str) -> tuple[str, ...]:
    """Return the native tensors that the checkpoint tensor `name` is split into; () if the table lacks it."""
    module, _, suffix = name.rpartition('.')  # suffix: weight or bias
    number = re.search(r'(?<=\.)\d+(?=\.)', module)
    template = module if number is None else f'{module[: number.start()]}{{n}}{module[number.end() :]}'
    layer = '' if number is None else number.group()
    return tuple(f'{native.replace("{n}", layer)}.{suffix}' for native in table.get(template, ()))


def fused_names(table: Table, natives: list[str]) -> dict[str, tuple[str, ...]]:
    """Map each checkpoint tensor to its native tensors, for the native tensors `natives`, in their order."""
    sources = {native: (old, parts) for old, parts in table.items() for native in parts}
    fused: dict[str, tuple[str, ...]] = {}
    for name in natives:
        module, _, suffix = name.rpartition('.')
        number = re.search(r'(?<=^model\.layers\.)\d+', module)
        template = module if number is None else f'model.layers.{{n}}{module[number.end() :]}'
        old, parts = sources[template]
        layer = '' if number is None else number.group()
        fused[f'{old.replace("{n}", layer)}.{suffix}'] = tuple(f'{p.replace("{n}", layer)}.{suffix}' for p in parts)
    return fused


def split_fused(
    names: tuple[str, ...], tensor: torch.Tensor, qkv_rows: tuple[int, ...]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the native tensors of a checkpoint tensor as views: the full tensor, or its rows of q, k and v."""
    yield from zip(names, tensor.split(qkv_rows) if len(names) > 1 else (tensor,), strict=True)


def normalize_rows(head_VD: torch.Tensor) -> torch.Tensor:
    """Return an lm_head with rows of norm 1, computed in float32, in its own type."""
    return F.normalize(head_VD.float(), dim=1, eps=1e-12).to(head_VD.dtype)
