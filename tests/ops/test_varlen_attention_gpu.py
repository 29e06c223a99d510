"""The varlen attention kernel has the results of masked attention. Run with `-m gpu`."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, LlamaConfig

from xtune.ops import flash_attention_3
from xtune.ops.varlen_attention import varlen_attention
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.packed_attention import install_packed_attention

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]
BATCH_SIZE, SEQ_LEN = 2, 384
# A window longer than the sequence has no effect.
WINDOWS = [None, 5000, 50, 2]
CU_SEQLENS = [0, 1, 130, 257, 384, 640, 768]


def masked(query, key, value, cu_seqlens, window):
    """Return the output of masked attention in float32."""
    index = torch.arange(BATCH_SIZE * SEQ_LEN, device='cuda')
    segment = torch.bucketize(index, torch.tensor(cu_seqlens[1:-1], device='cuda'), right=True).view(
        BATCH_SIZE, SEQ_LEN
    )
    position = torch.arange(SEQ_LEN, device='cuda')
    near = (position[:, None] >= position) & (position[:, None] - position < window)
    mask = (segment[:, None, :, None] == segment[:, None, None, :]) & near
    tensors = (t.float() for t in (query, key, value))
    return scaled_dot_product_attention(*tensors, attn_mask=mask, scale=0.1, enable_gqa=True).transpose(1, 2)


@pytest.fixture(params=['torch', flash_attention_3.NAME])
def kernels(request):
    """The package of the kernel."""
    if request.param == flash_attention_3.NAME:
        if not flash_attention_3.is_installed(torch.device('cuda'), torch.bfloat16):
            pytest.skip(f'{flash_attention_3.NAME}, which no package index has, is not installed for this GPU')
        assert flash_attention_3.activate()
        yield
        flash_attention_3.restore()
    else:
        yield


@pytest.mark.usefixtures('kernels')
@pytest.mark.parametrize('empty', [0, 10])
@pytest.mark.parametrize('window', WINDOWS)
@pytest.mark.parametrize(('heads', 'key_heads'), [(4, 4), (8, 2)])
@pytest.mark.parametrize('size', [64, 96, 128, 256])
def test_the_kernel_computes_masked_attention(size, heads, key_heads, window, empty):
    torch.manual_seed(0)
    shapes = [(BATCH_SIZE, n, SEQ_LEN, size) for n in (heads, key_heads, key_heads)]
    query_key_value = [torch.randn(s, device='cuda', dtype=torch.bfloat16, requires_grad=True) for s in shapes]
    config = SimpleNamespace(sliding_window=window)
    module = SimpleNamespace(config=config)
    cu_seqlens = torch.tensor(CU_SEQLENS + [CU_SEQLENS[-1]] * empty, dtype=torch.int32, device='cuda')
    output, _ = varlen_attention(
        module,
        *query_key_value,
        None,
        packed_cu_seqlens=cu_seqlens,
        packed_max_seqlen=256,
        scaling=0.1,
        sliding_window=window,
    )
    expected = masked(*query_key_value, CU_SEQLENS, window or SEQ_LEN)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((out.float() * weight).sum(), query_key_value) for out in (output, expected)]
    for new, old in zip((output, *gradients[0]), (expected, *gradients[1]), strict=True):
        assert new.isfinite().all()
        assert (new.float() - old.float()).norm() < 0.02 * old.float().norm()


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation='sdpa').to('cuda', torch.bfloat16)


@pytest.mark.parametrize('checkpointed', [False, True])
def test_compiled_layers_have_the_same_outputs_and_compile_once(checkpointed):
    torch._dynamo.reset()
    counters.clear()
    llm = llama()
    ids = torch.randint(512, (2, 256), device='cuda')
    batches = [[0, 100, 256, 512], [0, 30, 256, 300, 400, 512], list(range(0, 513, 16)), [0, 200, 256, 500, 512]]
    expected = []
    for cu_seqlens in batches:
        starts = torch.zeros(512, dtype=torch.long, device='cuda').index_fill(
            0, torch.tensor(cu_seqlens[:-1]).cuda(), 1
        )
        first = (torch.arange(512, device='cuda') * starts).cummax(0).values
        positions = (torch.arange(512, device='cuda') - first).view(2, 256)
        logits = llm(input_ids=ids, position_ids=positions, use_cache=False).logits
        logits.float().square().mean().backward()
        expected_grad = llm.model.layers[0].self_attn.q_proj.weight.grad.clone()
        llm.zero_grad()
        expected.append((positions, logits.detach(), expected_grad))
    attention = install_packed_attention(llm, torch.bfloat16, torch.device('cuda'), 256, nullcontext())
    assert attention is not None
    if checkpointed:
        ActivationCheckpointing(llm).apply(CheckpointPolicy())
    llm.train()
    for layer in llm.model.layers:
        layer.compile()
    graphs = []
    for cu_seqlens, (positions, logits, expected_grad) in zip(batches, expected, strict=True):
        count = 16 if len(cu_seqlens) <= 17 else 32
        filled = torch.tensor(cu_seqlens + [512] * (count + 1 - len(cu_seqlens)), dtype=torch.int32, device='cuda')
        torch._dynamo.maybe_mark_dynamic(filled, 0)
        kwargs = dict(packed_cu_seqlens=filled, packed_max_seqlen=16 if count == 32 else 256)
        output = llm(input_ids=ids, position_ids=positions, use_cache=False, **kwargs).logits
        output.float().square().mean().backward()
        grad = llm.model.layers[0].self_attn.q_proj.weight.grad.clone()
        llm.zero_grad()
        assert (output - logits).float().norm() < 0.05 * logits.float().norm()
        assert (grad - expected_grad).float().norm() < 0.2 * expected_grad.float().norm()
        graphs.append(counters['stats']['unique_graphs'])
    assert graphs[0] == graphs[1] and graphs[2] == graphs[3] <= 2 * graphs[0]
    assert not counters['graph_break']
