"""`xtune plan`: what it prints, what fits, what it suggests, and what a run refuses."""

import json
import re
from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from xtune.errors import ModelError
from xtune.models.loading.hf_config import load_hf_config
from xtune.planning import fit_check
from xtune.planning.meta_model import planned_meta_model
from xtune.planning.phase_meters import without_values
from xtune.planning.planner import CONTEXT, GIB, USABLE, Planner, room
from xtune.planning.random_init import fill
from xtune.planning.report import make_plan
from xtune.planning.show import show
from xtune.planning.variants import nearest

WIDE = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=8, vocab_size=2000)


def test_the_command_prints_a_plan(make_config, xtune, shape):
    config = make_config('full', base_model=shape(num_hidden_layers=2))
    code, out, err = xtune('plan', config, '--memory', '8')
    assert code == 0, err
    for word in ('peak', 'parameters are trained', 'unknown without a GPU', 'counted on slices', '8 GB', 'yes'):
        assert word in ' '.join(out.split()), word


@pytest.mark.parametrize('terminal', [True, False])
def test_on_a_terminal_it_says_what_it_counts(make_config, xtune, shape, monkeypatch, terminal):
    monkeypatch.setattr('sys.stderr.isatty', lambda: terminal)
    monkeypatch.setenv('TERM', 'xterm')
    changes = {'checkpointing': 'all', 'speed.compile': False}
    config = make_config('full', base_model=shape(num_hidden_layers=1), **changes)
    code, out, err = xtune('plan', config, '--memory', '8', '--json')
    assert code == 0 and json.loads(out)['cards'][0]['fits']
    assert ('counting steps of 2 x 128 tokens, checkpointing=all' in err) == terminal


def test_a_strategy_that_slices_is_named(make_config, xtune, shape):
    config = make_config('full', base_model=shape(num_hidden_layers=1), **{'schedule.accumulate': 1})
    code, out, _ = xtune('plan', config, '--strategy', 'fsdp2', '--memory', '8')
    assert code == 0 and 'fsdp2 shards this' in ' '.join(out.split())


@pytest.mark.slow
def test_rows_that_are_split_take_the_share_of_a_device(make_config, xtune, shape):
    def planned(length, *options):
        config = make_config('full', base_model=shape(**WIDE), max_length=length, **{'speed.compile': False})
        code, out, err = xtune('plan', config, '--memory', '1', '--strategy', 'ddp', *options)
        assert code == 0, err
        return ' '.join(out.partition('card')[0].split())

    split, alone = planned(4096, '--cfg-options', 'strategy.sequence_parallel_size=4'), planned(1024)
    assert 'x 4,096 tokens in a forward pass' in split
    assert 'rows split over 4 devices; the figures are those of one' in split and 'rows split' not in alone
    figures = [re.findall(r'[\d.,]+ GiB', text) for text in (split, alone)]
    assert figures[0] == figures[1] and len(figures[0]) == 8


def test_json_has_all_figures_and_smaller_cards_get_a_way_out(make_config, xtune, shape):
    options = {
        'schedule.batch_size': 8,
        'schedule.accumulate': 1,
        'checkpointing': 'none',
        'max_length': 512,
        'speed.compile': False,
    }
    config = make_config('full', base_model=shape(**WIDE), **options)
    code, out, err = xtune('plan', config, '--memory', '5.2', '100', '--json')
    assert code == 0, err
    plan = json.loads(out)
    memory, (small, large) = plan['memory'], plan['cards']
    assert set(memory) >= {'frozen', 'trained', 'gradients', 'activations', 'peak', 'at', 'counted_peak'}
    assert plan['measured'] is False and plan['fits_here'] is None and plan['tokens_per_second'] is None
    assert large == dict(gb=100, fits=True, options=[], peak=memory['peak'], recomputed=0)
    assert memory['peak'] + CONTEXT > room(5.2) > small['peak'] + CONTEXT and small['fits'] is False
    assert small['options'] == ['checkpointing=auto']
    assert plan['parameters'] == plan['trained_parameters']
    assert plan['disk']['checkpoint'] == pytest.approx(12 * plan['parameters'], rel=0.01)
    assert plan['disk']['total'] == 3 * plan['disk']['checkpoint'] and plan['disk']['adapter'] == 0


def test_nearest_changes_come_in_order_and_keep_the_step(job, shape):
    made = job('full', base_model=shape(), checkpointing='none', max_length=512, **{'schedule.batch_size': 6})
    variants = list(nearest(made))
    smallest = ('schedule.batch_size=1', 'schedule.accumulate=12')
    assert [variant.options for variant in variants[:5]] == [
        (),
        ('checkpointing=auto',),
        ('checkpointing=auto', 'schedule.batch_size=3', 'schedule.accumulate=4'),
        ('checkpointing=auto', *smallest),
        (*smallest, 'checkpointing=offload'),
    ]
    assert variants[5].options == ('checkpointing=auto', *smallest, 'a lora preset')
    assert variants[6].options[-1] == 'a qlora preset'
    assert variants[7].options[-1] == 'max_length=256' and len(variants) == 8
    assert variants[6].job.quantization is not None and variants[5].job.lora is not None


def test_a_gpu_that_cannot_do_it_is_named(job, shape):
    options = {'schedule.batch_size': 1, 'speed.compile': False, 'lora.target_modules': ['q_proj']}
    plan = make_plan(job('lora', base_model=shape(num_hidden_layers=1), max_length=32, **options), (), None)
    console = Console(file=StringIO(), width=200)
    show(plan, console)
    assert 'refuses' not in console.file.getvalue()
    odd = replace(plan.job, values=replace(plan.job.values, base_model='models/[new]/one'))
    show(
        replace(plan, job=odd, gpu='NVIDIA A100', gpu_bytes=40 * GIB, lacks='a GPU of compute capability 8.9'), console
    )
    said = console.file.getvalue()
    assert 'models/[new]/one: ' in said and 'fits: NVIDIA A100, 40.0 GiB' in said
    assert 'xtune train refuses it here: it needs a GPU of compute' in said


def test_nothing_fits_a_card_that_is_too_small(job, shape):
    options = {'schedule.batch_size': 1, 'speed.compile': False}
    made = job('qlora', base_model=shape(num_hidden_layers=1), max_length=128, **options)
    assert Planner(made).first_fit(room(0.1)) is None
    assert room(8) == USABLE * 8 * GIB


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'base_model': './nowhere'}, 'does not exist'),
        ({'base_model': 'some/absent-model'}, 'some/absent-model'),
        ({'quantization': {'type': 'transformers.HqqConfig', 'nbits': 4}}, 'section `quantization`'),
        ({'quantization': {'type': 'transformers.EetqConfig'}}, 'EetqConfig'),
    ],
)
def test_what_cannot_be_planned_is_said(make_config, xtune, change, said):
    code, _, err = xtune('plan', make_config(**change))
    assert code == 2 and said in err and 'Traceback' not in err


def test_what_a_run_refuses_is_not_planned_or_advised(make_config, xtune, shape):
    config = make_config('fp8_lora', base_model=shape(num_hidden_layers=2), max_length=64)
    code, _, err = xtune('plan', config, '--strategy', 'fsdp2')
    assert code == 2 and 'fp8_lora does not go with strategy fsdp2' in err
    code, out, _ = xtune('plan', config, '--memory', '0.1')
    assert code == 0 and 'a qlora preset with --strategy fsdp2' in ' '.join(out.split())


@pytest.mark.parametrize(
    ('wanted', 'said'),
    [
        ('sdpa', 'Gemma2ForCausalLM'),
        ('flash_attention_2', 'a step of Gemma2ForCausalLM cannot be run: '),
        (None, ''),
    ],
)
def test_attention_that_a_model_does_not_take_is_named(make_config, xtune, shape, wanted, said):
    caps = dict(model_type='gemma2', architectures=['Gemma2ForCausalLM'], attn_logit_softcapping=50.0, head_dim=16)
    changes = {'llm.attn_implementation': wanted, 'speed.compile': False, 'checkpointing': 'all'}
    config = make_config(base_model=shape(num_hidden_layers=2, **caps), max_length=64, pack=False, **changes)
    code, out, err = xtune('plan', config, '--memory', '8')
    if wanted is None:  # transformers takes what the model can
        assert code == 0 and 'peak' in out
    else:
        assert code == 2 and 'Traceback' not in err
        assert said in err and "set llm.attn_implementation='eager'" in err


def test_experts_that_are_not_quantised_and_rows_that_are_too_long_are_named(make_config, xtune, shape):
    kind = dict(model_type='mixtral', architectures=['MixtralForCausalLM'], num_local_experts=4, head_dim=16)
    options = {'speed.compile': False, 'checkpointing': 'all', 'schedule.batch_size': 1}
    base = shape(num_hidden_layers=2, **kind)
    experts = 2 * 4 * 3 * 64 * 128 * 2  # layers, experts, matrices of 64 x 128, bytes
    for method, there in (('qlora', experts), ('lora', 0)):
        config = make_config(method, base_model=base, max_length=1024, **options)
        code, out, _ = xtune('plan', config, '--memory', '8', '--json')
        assert code == 0 and json.loads(out)['memory']['experts_not_quantised'] == there
        assert json.loads(out)['warning'].startswith('max_length=1024 ')
    said = ' '.join(xtune('plan', make_config('qlora', base_model=base, **options), '--memory', '8')[1].split())
    assert '0.00 GiB of them are experts, which stay in bf16' in said and 'warning' not in said


def test_wrong_arguments_are_refused(make_config, xtune, capsys):
    for wrong in ('-3', '0', 'nan', 'large', '80000'):
        code, _, err = xtune('plan', make_config(), '--memory', wrong)
        assert (
            code == 2
            and f'--memory: the memory of a card is a number of GB above 0 and below 10,000, got {wrong}' in err
        )
    code, _, err = xtune('plan', make_config(), '--cfg-options', 'checkpoints=all')
    assert code == 2 and 'checkpointing' in err


@pytest.mark.parametrize('method', ['lora', 'qlora', 'full'])
def test_a_run_is_refused_only_if_its_weights_alone_are_too_much(method, job, shape):
    made = job(method, base_model=shape(**WIDE), **{'speed.compile': False})
    least = fit_check.floor(made, torch.bfloat16)
    fit_check.check(made, least, least.total, 'a GPU')
    with pytest.raises(ModelError) as refused:
        fit_check.check(made, least, least.total - 1, 'a GPU of ours')
    said = str(refused.value)
    assert 'a GPU of ours' in said and 'fsdp2' in said and 'xtune plan' in said
    assert ('qlora preset' in said) == (method != 'qlora')
    if method != 'full':
        return
    counted = Planner(made).counted(made)
    assert 0.85 * (counted.held + counted.gradients) < least.total <= counted.held + counted.gradients


def test_quantised_weights_take_what_bitsandbytes_makes_of_them(job, shape):
    made = job('qlora', base_model=shape(**WIDE))
    model = planned_meta_model(made, load_hf_config(made.values.base_model, made.load_llm), torch.bfloat16)
    least = fit_check.floor(replace(made), torch.bfloat16).frozen
    with without_values() as live:
        fill(model, torch.device('cpu'))
        assert least == pytest.approx(live.now, rel=0.05) and least <= live.now
