"""On a GPU: layers as CUDA graphs train as without."""

import gc
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from training import make_trainer
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from xtune.data.batches import MicroBatch
from xtune.engine.oom_retry import retry_on_oom
from xtune.engine.strategies import Replicated
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.cuda_graphs.capture import CudaGraphCapture
from xtune.optimizations.cuda_graphs.launch_bound import STEPS
from xtune.optimizations.cuda_graphs.runner import CudaGraphRunner
from xtune.optimizations.cuda_graphs.wrap_step import capture_when_launch_bound
from xtune.optimizations.fused_lora import fuse_lora
from xtune.optimizations.master_weights import MasterWeights
from xtune.optimizations.packed_attention import install_packed_attention
from xtune.tasks.lm_head import find_lm_head
from xtune.tasks.sft import SupervisedFineTuning

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]
SIZES = dict(vocab_size=512, hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2)


def base(kind, folder):
    torch.manual_seed(0)
    llm = LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=4))
    if kind != 'nf4':
        return llm.cuda()
    llm.save_pretrained(folder)
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype='bfloat16')
    return LlamaForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.bfloat16, device_map={'': 'cuda'}
    )


class SyncAfterUpdate(Replicated):
    """Allows synchronization with the GPU once the update is queued."""

    def read(self, values):
        torch.cuda.set_sync_debug_mode('default')
        return super().read(values)


def batch(width):
    ids = torch.randint(512, (2, width))
    return MicroBatch.unpacked(ids, ids.roll(-1, 1)).pin_memory()


def training(llm, full, graphs):
    """Return a trainer."""
    device = torch.device('cuda', 0)
    llm.train()
    if not full:
        llm.requires_grad_(False)
        llm = get_peft_model(llm, LoraConfig(r=8, lora_dropout=0.1, target_modules='all-linear'))
    masters = MasterWeights(llm, torch.bfloat16)
    for parameter in llm.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.bfloat16()
    fuse_lora(llm, torch.bfloat16)
    attention = install_packed_attention(llm, torch.bfloat16, device, 128, nullcontext(), packed=False)
    assert attention is not None
    layers = ActivationCheckpointing(llm)
    layers.apply(CheckpointPolicy(0))
    layers.compile()
    runner = CudaGraphRunner(layers, device, CudaGraphCapture(device)) if graphs else None
    own = dict(master_weights=masters, lm_head=find_lm_head(llm), attention=attention, graphs=runner)
    task = SupervisedFineTuning(llm, torch.bfloat16, device, **own)
    parameters = list(task.trained_parameters().values())
    wrappers = [retry_on_oom(layers, runner), *([capture_when_launch_bound(runner)] if graphs else [])]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    return make_trainer(task, optimizer, wrappers=wrappers, strategy=SyncAfterUpdate())


def trained(llm, full, graphs):
    """Return losses and norms of steps on rows of two widths, the weights after them, and how many were recorded."""
    trainer = training(llm, full, graphs)
    task = trainer.task
    torch.manual_seed(1)
    outs = [trainer.train_step([batch(64), batch(128)]) for _ in range(STEPS + 5)]
    found = [(out.loss, out.grad_norm) for out in outs]
    return found, list(task.trained_parameters().values()), len(task.graphs) if graphs else 0


@pytest.mark.parametrize('kind', ['bf16', 'nf4', 'full'])
def test_training_is_identical(kind, tmp_path):
    plain, graphed = (trained(base(kind, tmp_path), kind == 'full', graphs) for graphs in (False, True))
    assert graphed[2] == 2
    assert graphed[0] == plain[0]
    assert all(torch.equal(a, b) for a, b in zip(plain[1], graphed[1], strict=True))


@pytest.mark.parametrize('graphs', [False, True])
def test_nothing_waits_for_the_gpu_before_the_update_is_queued(graphs, tmp_path):
    trainer = training(base('bf16', tmp_path), False, graphs)
    data = [batch(64), batch(64)]
    for _ in range(STEPS + 3):
        trainer.train_step(data)
    torch.cuda.set_sync_debug_mode('error')
    try:
        trainer.train_step(data)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_memory_of_a_failed_capture_is_released():
    recorder = CudaGraphCapture(torch.device('cuda', 0))
    recorder(lambda: [torch.ones(4, device='cuda') * 2])
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()

    def fails():
        torch.empty(2**30, dtype=torch.uint8, device='cuda').zero_()
        raise torch.OutOfMemoryError('CUDA out of memory')

    with pytest.raises(torch.OutOfMemoryError):
        recorder(fails)
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before + 2**29


@pytest.mark.parametrize('tried', [True, False])
def test_a_failed_capture_leaves_nothing_broken(tried):
    recorder, values = CudaGraphCapture(torch.device('cuda', 0)), torch.ones(64, device='cuda')
    before = torch.cuda.current_stream()

    def waits():
        return [values * torch.nn.functional.dropout(values).sum().item()]

    with pytest.raises(RuntimeError):
        with recorder.warmup(True) if tried else nullcontext():
            waits() if tried else recorder(waits)
    assert torch.cuda.current_stream() == before and not torch.cuda.is_current_stream_capturing()
    torch.cuda.manual_seed(0)
    found = torch.nn.functional.dropout(values).sum()
    torch.cuda.manual_seed(0)
    assert found == torch.nn.functional.dropout(values).sum()
    torch.cuda.empty_cache()
    assert torch.ones(2**20, device='cuda').sum().item() == 2**20
    recorder.new_pool()
    (made,), again = recorder(lambda: [values * 3])
    again()
    assert made.sum().item() == 3 * 64


@pytest.mark.parametrize('options', [{}, {'schedule.gradient_accumulation_steps': 1, 'pack': False}])
def test_runs_are_identical(options, make_config, xtune, tmp_path):
    import json

    found = []
    for name, on in (('on', True), ('off', False)):
        given = {'schedule.max_steps': 10, 'schedule.max_epochs': 9, 'checkpoint.every_steps': None, **options}
        code, out, err = xtune('train', make_config('qlora', name, **{'speed.cuda_graphs': on, **given}))
        assert code == 0, err
        assert ('CUDA graphs' in out) == on
        lines = (tmp_path / name / 'metrics.jsonl').read_text('utf-8').splitlines()
        found.append([row['loss'] for row in map(json.loads, lines) if 'loss' in row])
    assert found[0] == found[1]
