"""Baichuan 13B: ALiBi attention with packed samples, padding, a KV cache and activation checkpointing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xtune.errors import ModelError
from xtune.export.legacy_writer import open_for_original, write_native
from xtune.models.legacy.alibi import slopes
from xtune.models.legacy.load import load_legacy
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy

FOLDER = Path(__file__).parent / 'files' / 'baichuan_13b'


@pytest.fixture(scope='module')
def model():
    return load_legacy(FOLDER, dtype=torch.float32, device_map={'': 'cpu'})


@pytest.fixture
def native(tmp_path):
    """The checkpoint, written in the native layout."""
    write_native(open_for_original(FOLDER, 'base', None), tmp_path, 10**9)
    return tmp_path


def packed(*lengths):
    ids = torch.randint(3, 300, (1, sum(lengths)), generator=torch.Generator().manual_seed(0))
    return ids, torch.cat([torch.arange(n) for n in lengths])[None]


def test_slopes_of_any_number_of_heads():
    assert slopes(8) == [2.0**-i for i in range(1, 9)]
    assert slopes(6) == pytest.approx([2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])
    assert len(slopes(40)) == 40 and slopes(40)[32:] == pytest.approx([2 ** (-(2 * i + 1) / 8) for i in range(8)])


def test_packed_samples_have_the_logits_of_separate_ones(model):
    ids, positions = packed(9, 17, 5)
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        apart = torch.cat([model(input_ids=part).logits[0] for part in ids.split([9, 17, 5], dim=1)])
        merged = model(input_ids=ids).logits[0]
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-4)
    assert (merged - apart).abs().max() > 1  # without restarting positions it is a single sample


def test_activation_checkpointing_gives_the_same_gradients():
    ids, positions = packed(9, 17)
    grads = []
    for recompute in (False, True):
        llm = load_legacy(FOLDER, dtype=torch.float32, device_map={'': 'cpu'}).train()
        if recompute:
            ActivationCheckpointing(llm).apply(CheckpointPolicy())
        llm(input_ids=ids, position_ids=positions, labels=ids, use_cache=False).loss.backward()
        grads.append({name: p.grad for name, p in llm.named_parameters()})
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-6) for name in grads[0])


@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16))
def test_padded_sequences_are_finite_in_half_precision(model, dtype):
    low = load_legacy(FOLDER, dtype=dtype, device_map={'': 'cpu'})
    ids, _ = packed(400)
    mask = torch.ones_like(ids)
    mask[:, :150] = 0
    with torch.no_grad():
        ours = low(input_ids=ids, attention_mask=mask).logits[mask.bool()].float()
        exact = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    assert ours.isfinite().all()
    assert (ours - exact).abs().mean() < 0.15


@pytest.mark.parametrize('other', ('eager', 'flash_attention_2', 'flex_attention'))
def test_attention_implementations_without_alibi_are_refused(other, native):
    from transformers import AutoModelForCausalLM

    with pytest.raises(ModelError, match=f"'{other}' .*ALiBi"):
        load_legacy(FOLDER, attn_implementation=other)
    with pytest.raises(ModelError, match=f"'{other}' .*ALiBi"):
        AutoModelForCausalLM.from_pretrained(native, attn_implementation=other)
    llm = AutoModelForCausalLM.from_pretrained(native, attn_implementation='sdpa')
    with pytest.raises(ModelError, match=f"'{other}' .*ALiBi"):
        llm.set_attn_implementation(other)


@pytest.mark.integration
@pytest.mark.parametrize('first, second', (('xtune', 'transformers'), ('transformers', 'xtune')))
def test_saved_model_loads_with_xtune_and_is_refused_without(first, second, native, model):
    load = (
        'import sys, torch\n'
        'from transformers import AutoTokenizer, AutoModelForCausalLM\n'
        'llm = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)\n'
        'with torch.no_grad():\n'
        '    print(type(llm).__name__, llm(input_ids=torch.arange(3, 30)[None]).logits.sum().item())\n'
    )
    run = [sys.executable, '-c', f'import {first}, {second}\n{load}', str(native)]
    name, total = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    with torch.no_grad():
        wanted = model(input_ids=torch.arange(3, 30)[None]).logits.sum().item()
    assert name == 'BaichuanAlibiForCausalLM' and float(total) == pytest.approx(wanted, abs=0.05)

    if first == 'transformers':
        alone = subprocess.run([sys.executable, '-c', load, str(native)], capture_output=True, text=True)
        assert alone.returncode and 'xtune_baichuan_alibi' in alone.stderr
    assert json.loads((native / 'config.json').read_text())['model_type'] == 'xtune_baichuan_alibi'


def test_importing_xtune_imports_neither_torch_nor_transformers():
    code = 'import sys, xtune; print({"torch", "transformers"} & set(sys.modules))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == 'set()'
