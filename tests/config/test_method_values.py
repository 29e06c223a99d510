"""Values of optimizer, adapter and quantization are checked by type and range, with what is allowed in the error."""

import re
from functools import partial

import pytest
import torch
from bitsandbytes.optim import AdamW8bit, AdEMAMix
from peft import AdaLoraConfig, IA3Config, LoraConfig
from torch.optim import SGD, Adafactor, AdamW, RMSprop
from transformers import BitsAndBytesConfig

from xtune.config.annotations import type_errors
from xtune.config.lora_values import lora_problems
from xtune.config.method_values import optimizer_problems, quantization_notes, quantization_problems


@pytest.mark.parametrize(
    ('kind', 'given', 'said'),
    [
        (AdamW, dict(lr=-1e-4), 'optimizer.lr` must be a number of at least 0, got -0.0001'),
        (AdamW, dict(lr='1e-4'), "optimizer.lr` must be a number of at least 0, got '1e-4'"),
        (AdamW, dict(lr=float('nan')), 'optimizer.lr` must be .* got nan'),
        (
            AdamW,
            dict(lr=1e-4, betas=(0.9, 1.0)),
            r'betas` must be 2 numbers in brackets, each of at least 0 and below 1',
        ),
        (AdamW, dict(lr=1e-4, betas=0.9, weight_decay=-1), 'optimizer.weight_decay.*optimizer.betas'),
        (AdamW, dict(lr=1e-4, eps=0), 'optimizer.eps` must be a number above 0, got 0'),
        (AdamW, dict(lr=1e-4, fused=True, foreach=True), 'AdamW refuses its arguments'),
        (AdamW, dict(lr=1e-4, betas=(0.9,)), r'betas` must be 2 numbers .* got \(0.9,\)'),
        (AdamW, dict(lr=1e-4, amsgrad='yes'), "amsgrad` must be True or False, got 'yes'"),
        (AdamW8bit, dict(lr=1e-4, optim_bits='8'), "optim_bits` must be a number, got '8'"),
        (AdEMAMix, dict(lr=1e-4, betas=(0.9, 0.99)), 'betas` must be 3 numbers'),
        (Adafactor, dict(lr=1e-4, eps=1e-8), 'eps` must be 2 numbers in brackets, each .*above 0 or None'),
        (RMSprop, dict(lr=1e-4, alpha='x', centered=2), 'alpha` must be a number.*centered` must be True or False'),
        (AdamW, dict(params=[1], lr='x'), '^`optimizer.params` is not an option'),
        (SGD, dict(lr=1e-4, nesterov=True), 'SGD refuses its arguments'),
        (SGD, dict(lr=1e-4, momentum=1.5), 'optimizer.momentum` must be a number of at least 0 and below 1, got 1.5'),
    ],
)
def test_an_optimizer_is_refused(kind, given, said):
    found = list(optimizer_problems(partial(kind, **given)))
    assert re.search(said, '; '.join(found)), found


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (dict(r=0), 'lora.r` must be a whole number of at least 1, got 0'),
        (dict(r='8', lora_alpha=-1), r"lora.r` must .* got '8'; .lora.lora_alpha` must be a number above 0, got -1"),
        (dict(lora_dropout=2), 'lora.lora_dropout` must be a number of at least 0 and below 1, got 2'),
        (dict(bias='lora-only'), "must be one of 'none', 'all', 'lora_only'.*did you mean `lora_only`"),
        (dict(init_lora_weights='gausian'), 'did you mean `gaussian`'),
        (dict(init_lora_weights='pissa_niter_x'), 'init_lora_weights`.* did you mean `pissa_niter_16`'),
        (dict(init_lora_weights='eva'), 'needs a pass over data'),
        (dict(loftq_config=dict(loftq_bits=4)), "loftq_config` has no effect .*only with 'loftq'"),
        (dict(rank_pattern={'q_proj': 0}), 'lora.rank_pattern.q_proj` must be a whole number'),
        (dict(alpha_pattern=['q_proj']), 'lora.alpha_pattern` must be a dict'),
        (dict(task_type='SEQ_CLS'), "task_type` must be 'CAUSAL_LM', got 'SEQ_CLS'"),
        (dict(target_modules=5), 'target_modules` must be a .*list of strings.*, got 5'),
        (dict(target_modules=['q_proj', 3]), 'target_modules` must be a .*list of strings'),
        (dict(layers_to_transform='1'), 'layers_to_transform` must be a list of whole numbers or a whole number'),
        (dict(use_dora='yes'), "use_dora` must be True or False, got 'yes'"),
        (dict(inference_mode=True), 'lora.inference_mode`=True'),
        (dict(target_modules='x', layers_to_transform=[1]), 'section `lora` is refused'),
    ],
)
def test_an_adapter_is_refused(given, said):
    found = list(lora_problems(partial(LoraConfig, **given)))
    assert re.search(said, '; '.join(found)), found


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (dict(load_in_4bit=True, bnb_4bit_quant_type='nf5'), "must be 'nf4' or 'fp4', got 'nf5'"),
        (dict(bnb_4bit_quant_type='nf4'), 'set load_in_4bit or load_in_8bit'),
        (dict(load_in_4bit=1), 'load_in_4bit` must be True or False, got 1'),
        (dict(load_in_4bit=True, load_in_8bit=True), 'section `quantization` is refused'),
        (
            dict(load_in_4bit=True, bnb_4bit_compute_dtype='bf16'),
            "one of 'bfloat16', .* got 'bf16'",
        ),
        (dict(load_in_4bit='yes'), "load_in_4bit` must be True or False, got 'yes'"),
        (dict(load_in_4bit=True, bnb_4bit_quant_storage='int7'), 'did you mean `int8`'),
        (
            dict(load_in_8bit=True, llm_int8_skip_modules='lm_head'),
            'quantization.llm_int8_skip_modules` must be a list',
        ),
        (dict(load_in_8bit=True, llm_int8_threshold=-1), 'llm_int8_threshold` must be a number of at least 0'),
        (
            dict(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=True),
            'llm_int8_enable_fp32_cpu_offload` has no effect',
        ),
    ],
)
def test_a_quantization_is_refused(given, said):
    found = list(quantization_problems(partial(BitsAndBytesConfig, **given)))
    assert re.search(said, '; '.join(found)), found


_OPTIMIZERS = [
    (AdamW, dict(lr=1, betas=[0.0, 0.95], fused=True)),
    (Adafactor, dict(lr=1e-3, eps=(None, 1e-3))),
    (SGD, {}),
    (AdamW8bit, dict(lr=1, betas=(0.0, 0.9), optim_bits=8, is_paged=False)),
]


def test_what_is_allowed_passes():
    for kind, given in _OPTIMIZERS:
        assert not list(optimizer_problems(partial(kind, **given)))
    for given in (
        dict(r=8, lora_alpha=16.5, lora_dropout=0, bias='all', use_dora=True, target_modules='all-linear'),
        *(
            dict(init_lora_weights=start)
            for start in (False, 'gaussian', 'orthogonal', 'pissa', 'pissa_niter_4', 'olora')
        ),
        dict(rank_pattern={'q_proj': 4}, alpha_pattern={'q_proj': 4.5}),
    ):
        assert not list(lora_problems(partial(LoraConfig, **given)))
    assert not list(lora_problems(partial(IA3Config, target_modules=['q_proj'], feedforward_modules=[])))
    four_bits = partial(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    assert not list(quantization_problems(four_bits))


def test_ranks_that_would_not_be_reallocated_are_refused():
    assert 'use LoraConfig' in ''.join(lora_problems(partial(AdaLoraConfig, total_step=10)))


def test_values_of_the_other_number_of_bits_are_noted():
    given = dict(load_in_4bit=False, load_in_8bit=True, bnb_4bit_quant_type='nf4')
    assert not list(quantization_problems(partial(BitsAndBytesConfig, **given)))
    notes = list(quantization_notes(partial(BitsAndBytesConfig, **given)))
    assert notes == ['quantization.bnb_4bit_quant_type has no effect with load_in_8bit=True']
    assert not list(quantization_notes(partial(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type='nf4')))


def factory(params, lr: float, name: 'str | None' = None, *, layers: tuple[int, ...] = (), kind: torch.dtype = None):
    """Stand for a function of a user's own."""


@pytest.mark.parametrize(
    ('given', 'wrong'),
    [
        (dict(lr=1, name='x', layers=[1, 2], kind='bfloat16'), []),
        (dict(lr='1'), ["`optimizer.lr` must be a number, got '1'"]),
        (dict(lr=True, name=3), ['`optimizer.lr`', '`optimizer.name` must be a string or None, got 3']),
        (dict(lr=1.0, layers=[1.5], name=None), ['`optimizer.layers` must be a list of whole numbers, got [1.5]']),
        (dict(lr=None), ['`optimizer.lr` must be a number, got None']),
    ],
)
def test_annotations_of_own_functions_count(given, wrong):
    found = list(type_errors('optimizer', factory, given))
    assert len(found) == len(wrong) and all(map(str.startswith, found, wrong)), found
