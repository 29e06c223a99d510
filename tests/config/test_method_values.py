"""Values of optimizer, adapter and quantization are checked by type and range, with what is allowed in the error."""

from functools import partial

import pytest
import torch
from bitsandbytes.optim import AdamW8bit, AdEMAMix
from golden import short
from peft import AdaLoraConfig, IA3Config, LoraConfig
from torch.optim import SGD, Adafactor, AdamW, RMSprop
from transformers import BitsAndBytesConfig

from xtune.config.annotations import type_errors
from xtune.config.lora_values import lora_problems
from xtune.config.method_values import optimizer_problems, quantization_notes, quantization_problems

OPTIMIZERS = [
    (AdamW, dict(lr=-1e-4)),
    (AdamW, dict(lr='1e-4')),
    (AdamW, dict(lr=float('nan'))),
    (AdamW, dict(lr=1e-4, betas=(0.9, 1.0))),
    (AdamW, dict(lr=1e-4, betas=0.9, weight_decay=-1)),
    (AdamW, dict(lr=1e-4, eps=0)),
    (AdamW, dict(lr=1e-4, fused=True, foreach=True)),
    (AdamW, dict(lr=1e-4, betas=(0.9,))),
    (AdamW, dict(lr=1e-4, amsgrad='yes')),
    (AdamW8bit, dict(lr=1e-4, optim_bits='8')),
    (AdEMAMix, dict(lr=1e-4, betas=(0.9, 0.99))),
    (Adafactor, dict(lr=1e-4, eps=1e-8)),
    (RMSprop, dict(lr=1e-4, alpha='x', centered=2)),
    (AdamW, dict(params=[1], lr='x')),
    (SGD, dict(lr=1e-4, nesterov=True)),
    (SGD, dict(lr=1e-4, momentum=1.5)),
]


def test_an_optimizer_is_refused(golden):
    found = {
        f'{optimizer.__name__} {short(values)}': list(optimizer_problems(partial(optimizer, **values)))
        for optimizer, values in OPTIMIZERS
    }
    assert all(found.values())
    golden('config.optimizers', {case: '\n'.join(problems) for case, problems in found.items()})


ADAPTERS = [
    dict(r=0),
    dict(r='8', lora_alpha=-1),
    dict(lora_dropout=2),
    dict(bias='lora-only'),
    dict(init_lora_weights='gausian'),
    dict(init_lora_weights='pissa_niter_x'),
    dict(init_lora_weights='eva'),
    dict(loftq_config=dict(loftq_bits=4)),
    dict(rank_pattern={'q_proj': 0}),
    dict(alpha_pattern=['q_proj']),
    dict(task_type='SEQ_CLS'),
    dict(target_modules=5),
    dict(target_modules=['q_proj', 3]),
    dict(layers_to_transform='1'),
    dict(use_dora='yes'),
    dict(inference_mode=True),
    dict(target_modules='x', layers_to_transform=[1]),
]


def test_an_adapter_is_refused(golden):
    found = {short(values): list(lora_problems(partial(LoraConfig, **values))) for values in ADAPTERS}
    assert all(found.values())
    golden('config.adapters', {case: '\n'.join(problems) for case, problems in found.items()})


QUANTIZATIONS = [
    dict(load_in_4bit=True, bnb_4bit_quant_type='nf5'),
    dict(bnb_4bit_quant_type='nf4'),
    dict(load_in_4bit=1),
    dict(load_in_4bit=True, load_in_8bit=True),
    dict(load_in_4bit=True, bnb_4bit_compute_dtype='bf16'),
    dict(load_in_4bit='yes'),
    dict(load_in_4bit=True, bnb_4bit_quant_storage='int7'),
    dict(load_in_8bit=True, llm_int8_skip_modules='lm_head'),
    dict(load_in_8bit=True, llm_int8_threshold=-1),
    dict(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=True),
]


def test_a_quantization_is_refused(golden):
    found = {
        short(values): list(quantization_problems(partial(BitsAndBytesConfig, **values))) for values in QUANTIZATIONS
    }
    assert all(found.values())
    golden('config.quantization', {case: '\n'.join(problems) for case, problems in found.items()})


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
    assert 'LoraConfig' in ''.join(lora_problems(partial(AdaLoraConfig, total_step=10)))


def test_values_of_the_other_number_of_bits_are_noted():
    given = dict(load_in_4bit=False, load_in_8bit=True, bnb_4bit_quant_type='nf4')
    assert not list(quantization_problems(partial(BitsAndBytesConfig, **given)))
    notes = list(quantization_notes(partial(BitsAndBytesConfig, **given)))
    assert len(notes) == 1 and 'bnb_4bit_quant_type' in notes[0] and 'load_in_8bit=True' in notes[0]
    assert not list(quantization_notes(partial(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type='nf4')))


def factory(params, lr: float, name: 'str | None' = None, *, layers: tuple[int, ...] = (), kind: torch.dtype = None):
    """Stand for a function of a user's own."""


@pytest.mark.parametrize(
    ('given', 'wrong'),
    [
        (dict(lr=1, name='x', layers=[1, 2], kind='bfloat16'), []),
        (dict(lr='1'), [('optimizer.lr', "'1'")]),
        (dict(lr=True, name=3), [('optimizer.lr', 'True'), ('optimizer.name', '3')]),
        (dict(lr=1.0, layers=[1.5], name=None), [('optimizer.layers', '[1.5]')]),
        (dict(lr=None), [('optimizer.lr', 'None')]),
    ],
)
def test_annotations_of_own_functions_count(given, wrong):
    found = list(type_errors('optimizer', factory, given))
    assert len(found) == len(wrong)
    for problem, (option, value) in zip(found, wrong, strict=True):
        assert problem.startswith(f'`{option}`') and problem.endswith(f'got {value}')
