"""Sizes, constants and options come from config.json: other ones than the checkpoints' against the mathematics.

`expected` computes the logits of one row from the old tensor names, in plain torch. It is held against the published
code's figures first, then models with other shapes and options are held against it.
"""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from xtune.models.legacy.load import load_legacy

FILES = Path(__file__).parent / 'files'
NORMS = dict(llama=('input_layernorm', 'post_attention_layernorm'), qwen=('ln_1', 'ln_2'))
MLP = ('mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'), ('mlp.w2', 'mlp.w1', 'mlp.c_proj')


def norm(x, weight, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def half_split(x_SNH, theta, positions):
    half = x_SNH.shape[-1] // 2
    angle = positions[:, None, None] * theta ** (-torch.arange(half) / half)
    a, b = x_SNH[..., :half], x_SNH[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def pairs_of_half(x_SNH, theta, positions):
    width = x_SNH.shape[-1] // 2
    turned, kept = x_SNH[..., :width], x_SNH[..., width:]
    angle = positions[:, None, None] * theta ** (-torch.arange(0, width, 2) / width)
    a, b = turned[..., ::2], turned[..., 1::2]
    both = torch.stack([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)
    return torch.cat([both.flatten(-2), kept], -1)


def slope(i, heads):
    power = 1 << (heads.bit_length() - 1)
    return 2 ** (-8 * (i + 1) / power) if i < power else 2 ** (-8 * (2 * (i - power) + 1) / (2 * power))


def expected(c, state, ids, *, norm_head=False, alibi=False, ratio=None):
    """Return logits [S, V]; `ratio` is 'base' or 'positions', for what rope_ratio scales."""
    kind = c['model_type']
    glm, qwen = kind == 'chatglm', kind == 'qwen'
    heads = c['num_attention_heads']
    width = c['kv_channels'] if glm or qwen else c['hidden_size'] // heads
    groups = c['multi_query_group_num'] if glm else heads
    eps = c.get('rms_norm_eps') or c.get('layer_norm_epsilon') or c.get('layernorm_epsilon')
    theta = c.get('rotary', {}).get('base') or c.get('rotary_emb_base') or 10000
    positions = torch.arange(len(ids)).float()
    if c.get('rotary', {}).get('type') == 'dynamic' and len(ids) > c['max_position_embeddings']:
        factor = c['rotary'].get('scaling_factor', 1.0)
        stretch = factor * len(ids) / c['max_position_embeddings'] - (factor - 1)
        theta *= stretch ** (width / (width - 2))
    theta *= c.get('rope_ratio', 1) if ratio == 'base' else 1
    positions /= c.get('rope_ratio', 1) if ratio == 'positions' else 1
    turn = (lambda x: x) if alibi else (lambda x: (pairs_of_half if glm else half_split)(x, theta, positions))

    def linear(x, name):
        return F.linear(x, state[f'{name}.weight'], state.get(f'{name}.bias'))

    embedding = state[
        ('transformer.embedding.word_embeddings' if glm else 'transformer.wte' if qwen else 'model.embed_tokens')
        + '.weight'
    ]
    x = embedding[ids]
    for n in range(c['num_layers'] if glm else c['num_hidden_layers']):
        at = f'transformer.encoder.layers.{n}.' if glm else f'transformer.h.{n}.' if qwen else f'model.layers.{n}.'
        first, second = NORMS['qwen' if qwen else 'llama']
        y = norm(x, state[f'{at}{first}.weight'], eps)
        if kind == 'internlm':
            q, k, v = (linear(y, f'{at}self_attn.{part}_proj') for part in 'qkv')
        else:
            joined = 'self_attention.query_key_value' if glm else 'attn.c_attn' if qwen else 'self_attn.W_pack'
            q, k, v = linear(y, at + joined).split([heads * width, groups * width, groups * width], -1)
        q, k, v = (t.view(len(ids), -1, width) for t in (q, k, v))
        q, k = turn(q), turn(k)
        k, v = (t.repeat_interleave(heads // groups, 1) for t in (k, v))
        scores = torch.einsum('qnh,knh->nqk', q, k) / math.sqrt(width)
        if alibi:
            bias = torch.tensor([slope(i, heads) for i in range(heads)])
            scores = scores + bias[:, None, None] * torch.arange(len(ids))
        scores = scores.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -math.inf)
        out = torch.einsum('nqk,knh->qnh', scores.softmax(-1), v).flatten(1)
        x = x + linear(out, at + ('self_attention.dense' if glm else 'attn.c_proj' if qwen else 'self_attn.o_proj'))
        y = norm(x, state[f'{at}{second}.weight'], eps)
        if glm:
            gate, up = linear(y, f'{at}mlp.dense_h_to_4h').chunk(2, -1)
            x = x + linear(F.silu(gate) * up, f'{at}mlp.dense_4h_to_h')
        else:
            gate, up, down = MLP[qwen]
            x = x + linear(F.silu(linear(y, at + gate)) * linear(y, at + up), at + down)
    last = 'transformer.encoder.final_layernorm' if glm else 'transformer.ln_f' if qwen else 'model.norm'
    head = state.get('transformer.output_layer.weight' if glm else 'lm_head.weight')
    head = embedding if head is None or c.get('tie_word_embeddings') else head
    return norm(x, state[f'{last}.weight'], eps) @ (F.normalize(head, dim=1) if norm_head else head).T


def model_files(folder, name, drop=(), **changes):
    """Write a checkpoint like `name` with other keys, and random weights of the sizes that they call for."""
    c = json.loads((FILES / name / 'config.json').read_text()) | changes
    c = {key: value for key, value in c.items() if value is not None}
    heads, hidden = c['num_attention_heads'], c['hidden_size']
    width = c.get('kv_channels', hidden // heads)
    q, kv = heads * width, c.get('multi_query_group_num', heads) * width
    inner = c.get('ffn_hidden_size', c.get('intermediate_size', 0) // (2 if name == 'qwen_7b' else 1))
    vocab = c.get('padded_vocab_size', c.get('vocab_size'))
    rows = {'W_pack': q + 2 * kv, 'c_attn': q + 2 * kv, 'query_key_value': q + 2 * kv, 'q_proj': q, 'k_proj': kv}
    rows |= {'v_proj': kv, 'gate_proj': inner, 'up_proj': inner, 'w1': inner, 'w2': inner, 'dense_h_to_4h': 2 * inner}
    rows |= dict.fromkeys(('embed_tokens', 'lm_head', 'wte', 'word_embeddings', 'output_layer'), vocab)
    columns = {
        'o_proj': q,
        'attn.c_proj': q,
        'dense': q,
        'down_proj': inner,
        'mlp.c_proj': inner,
        'dense_4h_to_h': inner,
    }
    torch.manual_seed(3)
    state = {}
    for key, old in load_file(FILES / name / 'model.safetensors').items():
        module, short = key.rsplit('.', 1)[0], key.split('.')[-2]
        if key.endswith('inv_freq') or any(part in key for part in drop):
            continue
        if old.ndim == 1 and not key.endswith('bias'):
            state[key] = 1 + 0.1 * torch.randn(hidden)
            continue
        down = next((n for end, n in columns.items() if module.endswith('.' + end)), hidden)
        shape = (rows.get(short, hidden),) if old.ndim == 1 else (rows.get(short, hidden), down)
        state[key] = torch.randn(shape) * (0.5 if old.ndim == 1 else down**-0.5)
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(c))
    save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})
    return c, state


@pytest.mark.parametrize(
    'name', ('internlm_7b', 'baichuan_7b', 'baichuan2_7b', 'baichuan_13b', 'qwen_7b', 'chatglm3_6b')
)
def test_the_mathematics_is_that_of_the_published_code(name, reference):
    c = json.loads((FILES / name / 'config.json').read_text())
    figures = reference(name)
    for kind in ('', 'long_'):
        ids, key = figures[f'{kind}input_ids'][0], f'{kind}logits'
        ours = expected(
            c, load_file(FILES / name / 'model.safetensors'), ids, norm_head='baichuan2' in name, alibi='13b' in name
        )
        wanted = figures.get(f'{key}_trainmode', figures[key])[0]
        torch.testing.assert_close(ours[:, ::7], wanted, rtol=0, atol=1e-4)


OTHERS = [
    ('internlm_7b', {}, dict(hidden_size=96, num_attention_heads=6, vocab_size=333, rms_norm_eps=1e-5), {}),
    ('internlm_7b', {}, dict(rotary=dict(base=50000, type='dynamic', scaling_factor=2.0)), {}),
    ('internlm_7b', {}, dict(rotary=dict(base=500, type='origin')), {}),
    ('internlm_7b', {}, dict(rotary=None, tie_word_embeddings=True), dict(drop=('lm_head',))),
    ('internlm_7b', {}, dict(bias=False, tie_word_embeddings=True), dict(drop=('bias',))),
    (
        'baichuan_7b',
        {},
        dict(hidden_size=48, num_attention_heads=3, num_hidden_layers=1),
        dict(drop=('layers.1.',)),
    ),
    ('baichuan2_7b', dict(norm_head=True), dict(vocab_size=125696), {}),
    ('baichuan2_7b', dict(norm_head=True), dict(tie_word_embeddings=True), dict(drop=('lm_head',))),
    ('baichuan_13b', dict(alibi=True), dict(hidden_size=80, num_attention_heads=5, vocab_size=64000), {}),
    ('baichuan_13b', dict(alibi=True), dict(hidden_size=64, num_attention_heads=8), {}),
    ('baichuan_13b', dict(alibi=True, norm_head=True), dict(vocab_size=125696), {}),
    ('qwen_7b', {}, dict(kv_channels=24, rotary_emb_base=1000000, layer_norm_epsilon=1e-5, seq_length=64), {}),
    ('qwen_7b', {}, dict(intermediate_size=96, num_attention_heads=2, tie_word_embeddings=True), {}),
    ('chatglm3_6b', {}, dict(kv_channels=24, multi_query_group_num=1, layernorm_epsilon=1e-6), {}),
    ('chatglm3_6b', {}, dict(add_qkv_bias=False, padded_vocab_size=401, ffn_hidden_size=72), dict(drop=('bias',))),
    ('chatglm3_6b', {}, dict(tie_word_embeddings=True), dict(drop=('output_layer',))),
    ('chatglm3_6b', dict(ratio='base'), dict(rope_ratio=4), dict(variant='chatglm3')),
    ('chatglm3_6b', dict(ratio='positions'), dict(rope_ratio=4), dict(variant='chatglm2')),
]


@pytest.mark.parametrize('name, how, changes, more', OTHERS)
def test_other_sizes_and_options(name, how, changes, more, tmp_path):
    c, state = model_files(tmp_path / name, name, more.get('drop', ()), **changes)
    model = load_legacy(tmp_path / name, more.get('variant'), dtype=torch.float32, device_map={'': 'cpu'})
    ids = torch.randint(3, 300, (48,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours = model(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(ours, expected(c, state, ids, **how), rtol=0, atol=1e-4)
