"""FlashAttention 3 replaces the kernel of torch if it is available and passes the parity check.

Its package runs on GPUs only (test_varlen_attention_gpu.py). Here, a substitute is registered with torch: one that
changes nothing, or one that makes the CPU attention of torch return wrong values.
"""

import sys
from contextlib import nullcontext

import pytest
import torch
from torch.nn import attention
from transformers import AutoModelForCausalLM, LlamaConfig

from xtune.ops import flash_attention_3
from xtune.optimizations.packed_attention import install_packed_attention

CPU, CUDA = torch.device('cpu'), torch.device('cuda')
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class UnchangedAttention:
    def remove(self):
        pass


class WrongAttention:
    """Attention on CPUs that returns zeros, until it is removed."""

    def __init__(self):
        self.library = torch.library.Library('aten', 'IMPL')
        self.library.impl(CPU_ATTENTION._schema.name, self.zeros, 'CPU')

    @staticmethod
    def zeros(query, key, value, *args, **kwargs):
        return torch.zeros_like(query), query.new_zeros(query.shape[:-1], dtype=torch.float32)

    def remove(self):
        self.library._destroy()


@pytest.fixture
def register():
    """Returns a function that registers a substitute; the registry of torch is restored afterwards."""
    from torch.nn.attention._fa3 import register_flash_attention_fa3

    yield lambda function: attention.register_flash_attention_impl(flash_attention_3.KEY, register_fn=function)
    if attention.current_flash_attention_impl():
        attention.restore_flash_attention_impl()
    attention.register_flash_attention_impl(flash_attention_3.KEY, register_fn=register_flash_attention_fa3)
    sys.modules.pop(flash_attention_3.MODULE, None)


@pytest.fixture
def fa3_installed(monkeypatch):
    """Pretend that FlashAttention 3 is installed."""
    monkeypatch.setattr(flash_attention_3, 'is_installed', lambda device, dtype: True)


def with_packed_attention(**options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    llm = AutoModelForCausalLM.from_config(config)
    return llm, install_packed_attention(llm, torch.float32, CPU, 64, nullcontext(), **options)


def logits(llm):
    cu_seqlens = torch.tensor([0, 7], dtype=torch.int32)
    kwargs = dict(packed_cu_seqlens=cu_seqlens, packed_max_seqlen=7)
    return llm(input_ids=torch.arange(7)[None], use_cache=False, **kwargs).logits


def test_flash_attention_3_is_used_and_shown(register, fa3_installed):
    register(UnchangedAttention)
    _, packed_attention = with_packed_attention()
    assert packed_attention.kernel == 'FlashAttention 3' and attention.current_flash_attention_impl() == 'FA3'


@pytest.mark.parametrize('on', [True, False])
def test_a_run_shows_it_unless_it_is_disabled(on, register, fa3_installed, make_config, xtune):
    register(UnchangedAttention)
    options = {'schedule.max_steps': 1, 'speed.flash_attention_3': on}
    code, out, err = xtune('train', make_config('lora', **options))
    assert code == 0, err
    assert ('varlen attention (FlashAttention 3)' in out) == on and 'varlen attention' in out
    assert attention.current_flash_attention_impl() == ('FA3' if on else None)


def test_an_implementation_with_other_results_is_deactivated(register, fa3_installed):
    llm, _ = with_packed_attention(allow_flash_attention_3=False)
    expected = logits(llm)
    register(WrongAttention)
    attention.activate_flash_attention_impl('FA3')
    assert (logits(llm) - expected).abs().max() > 1e-3, 'the substitute must be wrong'
    attention.restore_flash_attention_impl()
    llm, packed_attention = with_packed_attention()
    assert (
        packed_attention is not None
        and packed_attention.kernel is None
        and attention.current_flash_attention_impl() is None
    )
    torch.testing.assert_close(logits(llm), expected)


def test_a_package_built_for_another_torch_is_not_used(register, fa3_installed):
    def fail():
        raise ImportError('undefined symbol')

    register(fail)
    _, packed_attention = with_packed_attention()
    assert packed_attention is not None and packed_attention.kernel is None


def test_an_implementation_that_the_user_activated_stays(register, fa3_installed, monkeypatch):
    register(lambda: pytest.fail('it must not be activated'))
    with monkeypatch.context() as patch:
        patch.setattr(attention, 'current_flash_attention_impl', lambda: 'FA4')
        patch.setattr(attention, 'restore_flash_attention_impl', lambda: pytest.fail('it must not be restored'))
        _, packed_attention = with_packed_attention()
    assert packed_attention is not None and packed_attention.kernel is None


def test_each_run_in_a_process_decides_for_itself(register, fa3_installed):
    register(UnchangedAttention)
    assert with_packed_attention()[1].kernel is not None
    assert with_packed_attention(allow_flash_attention_3=False)[1].kernel is None
    assert attention.current_flash_attention_impl() is None
    register(WrongAttention)
    attention.activate_flash_attention_impl('FA3')
    _, packed_attention = with_packed_attention()
    assert (
        packed_attention is not None
        and packed_attention.kernel is None
        and attention.current_flash_attention_impl() is None
    )


def test_conditions_for_installed(register, tmp_path, monkeypatch):
    capability = [9, 0]
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: tuple(capability))
    assert not flash_attention_3.is_installed(CUDA, torch.bfloat16)
    (tmp_path / f'{flash_attention_3.MODULE}.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert flash_attention_3.is_installed(CUDA, torch.bfloat16)
    assert not flash_attention_3.is_installed(CUDA, torch.float32)
    assert not flash_attention_3.is_installed(CPU, torch.bfloat16)
    capability[:] = 8, 0
    assert not flash_attention_3.is_installed(CUDA, torch.bfloat16)


def test_a_package_without_kernels_is_not_used(register, tmp_path, monkeypatch):
    """With the registration by torch."""
    (tmp_path / f'{flash_attention_3.MODULE}.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not flash_attention_3.activate() and attention.current_flash_attention_impl() is None
