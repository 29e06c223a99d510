"""`xtune plan`: its tables and JSON, what fits, what it suggests, and what the fit check of a run refuses."""

import json
import re
from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from xtune.config.sections import Checkpoint
from xtune.parallel.compatibility import method_of_model
from xtune.planning.estimator import MemoryEstimator
from xtune.planning.fit_check import does_not_fit
from xtune.planning.make_plan import make_plan
from xtune.planning.phase_meters import fake_tensors
from xtune.planning.random_init import materialize
from xtune.planning.show import show
from xtune.planning.step_builder import StepBuilder
from xtune.planning.units import CONTEXT, GIB, USABLE, usable_bytes
from xtune.planning.variants import nearest_variants

WIDE = dict(hidden_size=512, intermediate_size=2048, num_attention_heads=8)
# One short sequence, every layer checkpointed, and few adapters.
QUICK = {'activation_checkpointing': 'all', 'schedule.batch_size': 1, 'max_length': 32}
LORA = QUICK | {'lora.target_modules': ['q_proj']}


def printed(plan):
    """Return the tables of a plan on one line."""
    console = Console(file=StringIO(), width=200)
    show(plan, console)
    return ' '.join(console.file.getvalue().split())


def test_the_command_prints_a_plan(make_config, xtune, model_folder):
    config = make_config('full', base_model=model_folder(), **QUICK)
    code, out, err = xtune('plan', config, '--strategy', 'fsdp2', '--memory', '8')
    assert code == 0 and 'counting steps' not in err, err
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    names = {'run', 'architecture', 'frozen', 'trained', 'gradients', 'activations', 'peak', 'needed', 'speed', 'disk'}
    assert set(lines) >= names and 'unknown' in lines['speed'] and 'fsdp2' in lines['strategy']
    assert lines['GPU'].split() == ['GPU', 'fits', 'peak', 'checkpointed', 'with']
    assert re.fullmatch(r'8 GB +yes +[\d.]+ GiB +1 layers', lines['8'].strip())


def test_on_a_terminal_progress_is_shown(make_config, xtune, model_folder, monkeypatch):
    monkeypatch.setattr('sys.stderr.isatty', lambda: True)
    monkeypatch.setenv('TERM', 'xterm')
    config = make_config('full', base_model=model_folder(), **QUICK)
    code, out, err = xtune('plan', config, '--memory', '8', '--json')
    assert code == 0 and json.loads(out)['cards'][0]['fits']
    assert 'counting steps of 1 x 32 tokens' in err


@pytest.mark.slow
def test_with_sequence_parallelism_values_are_per_device(make_config, xtune, model_folder):
    def planned(length, *options):
        config = make_config('full', base_model=model_folder(**WIDE, num_hidden_layers=12), max_length=length)
        code, out, err = xtune('plan', config, '--memory', '1', '--strategy', 'ddp', *options)
        assert code == 0, err
        return ' '.join(out.partition('GPU ')[0].split())

    sharded, alone = planned(4096, '--cfg-options', 'strategy.sequence_parallel_size=4'), planned(1024)
    assert 'x 4,096 tokens' in sharded
    assert 'sharded over 4 devices' in sharded and 'sharded over' not in alone
    figures = [re.findall(r'[\d.,]+ GiB', text) for text in (sharded, alone)]
    assert figures[0] == figures[1] and len(figures[0]) == 8


def test_json_has_all_figures_and_suggests_changes_for_smaller_gpus(make_config, xtune, model_folder):
    options = {
        'schedule.batch_size': 8,
        'schedule.gradient_accumulation_steps': 1,
        'activation_checkpointing': 'none',
        'max_length': 512,
    }
    layers = dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=24)
    config = make_config('full', base_model=model_folder(**layers), pack=False, **options)
    code, out, err = xtune('plan', config, '--memory', '100', '--json')
    assert code == 0, err
    plan = json.loads(out)
    memory, (large,) = plan['memory'], plan['cards']
    assert set(memory) >= {'frozen', 'trained', 'gradients', 'activations', 'peak', 'at', 'counted_peak'}
    assert plan['measured'] is False and plan['fits_here'] is None and plan['tokens_per_second'] is None
    assert large == dict(gb=100, fits=True, options=[], peak=memory['peak'], checkpointed=0)
    gb = 0.97 * (memory['peak'] + CONTEXT) / usable_bytes(1)
    (small,) = json.loads(xtune('plan', config, '--memory', f'{gb:.3f}', '--json')[1])['cards']
    assert small['peak'] + CONTEXT < usable_bytes(gb) and small['fits'] is False and small['checkpointed'] > 0
    assert small['options'] == ['activation_checkpointing=auto']
    assert plan['parameters'] == plan['trained_parameters']
    assert plan['disk']['checkpoint'] == pytest.approx(12 * plan['parameters'], rel=0.01)
    assert plan['disk']['total'] == 3 * plan['disk']['checkpoint'] and plan['disk']['adapter'] == 0


def test_suggested_changes_come_in_order_and_keep_the_optimizer_step(job, model_folder):
    run = job(
        'full', base_model=model_folder(), activation_checkpointing='none', max_length=512, **{'schedule.batch_size': 6}
    )
    variants = list(nearest_variants(run))
    smallest = ('schedule.batch_size=1', 'schedule.gradient_accumulation_steps=12')
    assert [variant.options for variant in variants[:5]] == [
        (),
        ('activation_checkpointing=auto',),
        ('activation_checkpointing=auto', 'schedule.batch_size=3', 'schedule.gradient_accumulation_steps=4'),
        ('activation_checkpointing=auto', *smallest),
        (*smallest, 'activation_checkpointing=offload'),
    ]
    assert variants[5].options == ('activation_checkpointing=auto', *smallest, 'a lora preset')
    assert variants[6].options[-1] == 'a qlora preset'
    assert variants[7].options[-1] == 'max_length=256' and len(variants) == 8
    assert variants[6].step.model.quantization is not None and variants[5].step.model.lora is not None


def test_a_gpu_that_does_not_support_the_run_is_named(job, model_folder):
    plan = make_plan(job('lora', base_model=model_folder(), **LORA), Checkpoint(), (), None)
    assert 'refuses' not in printed(plan)
    in_brackets = plan.step.with_model(base_model='models/[new]/one')
    gpu = dict(gpu='NVIDIA A100', gpu_bytes=40 * GIB, unsupported='compute capability 8.9')
    text = printed(replace(plan, step=in_brackets, **gpu))
    assert 'models/[new]/one: ' in text and 'fits: NVIDIA A100, 40.0 GiB' in text
    assert 'compute capability 8.9' in text


def test_nothing_fits_a_gpu_that_is_too_small(job, model_folder):
    run = job('qlora', base_model=model_folder(), **LORA)
    assert MemoryEstimator(run).first_fit(usable_bytes(0.1)) is None
    assert usable_bytes(8) == USABLE * 8 * GIB


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'base_model': './nowhere'}, './nowhere'),
        ({'base_model': 'some/absent-model'}, 'some/absent-model'),
        ({'quantization': {'type': 'transformers.HqqConfig', 'nbits': 4}}, 'quantization'),
        ({'quantization': {'type': 'transformers.EetqConfig'}}, 'EetqConfig'),
    ],
)
def test_runs_that_cannot_be_planned_are_refused(make_config, xtune, change, named):
    code, _, err = xtune('plan', make_config(**change))
    assert code == 2 and named in err and 'Traceback' not in err


def test_a_strategy_that_refuses_the_method_is_not_planned(make_config, xtune, model_folder):
    config = make_config('fp8_lora', base_model=model_folder(num_hidden_layers=2), **LORA)
    code, _, err = xtune('plan', config, '--strategy', 'fsdp2')
    assert code == 2 and 'fp8_lora' in err and 'fsdp2' in err


@pytest.mark.slow
def test_a_strategy_that_refuses_the_method_is_not_suggested(make_config, xtune, model_folder):
    config = make_config('fp8_lora', base_model=model_folder(num_hidden_layers=2), **LORA)
    code, out, _ = xtune('plan', config, '--memory', '0.1')
    assert code == 0 and '--strategy fsdp2' in ' '.join(out.split())


@pytest.mark.parametrize('requested', ['sdpa', 'flash_attention_2', pytest.param(None, marks=pytest.mark.slow)])
def test_attention_that_a_model_does_not_support_is_named(make_config, xtune, model_folder, requested):
    caps = dict(model_type='gemma2', architectures=['Gemma2ForCausalLM'], attn_logit_softcapping=50.0, head_dim=16)
    changes = {'llm.attn_implementation': requested, 'pack': False}
    config = make_config(base_model=model_folder(**caps), **LORA, **changes)
    code, out, err = xtune('plan', config, '--memory', '8')
    if requested is None:  # transformers selects one that the model supports
        assert code == 0 and 'peak' in out
    else:
        assert code == 2 and 'Traceback' not in err
        assert 'Gemma2ForCausalLM' in err and "llm.attn_implementation='eager'" in err


def test_unquantized_experts_and_sequences_over_the_context_length_are_named(job, model_folder):
    values = dict(model_type='mixtral', architectures=['MixtralForCausalLM'], num_local_experts=4, head_dim=16)
    experts = 4 * 3 * 64 * 128 * 2  # experts, matrices of 64 x 128, bytes
    options = LORA | {'base_model': model_folder(**values), 'max_length': 1024}
    plan = make_plan(job('qlora', **options), Checkpoint(), (), None)
    assert plan.to_dict()['memory']['experts_not_quantized'] == experts
    assert '1024' in plan.warning and '512' in plan.warning and plan.warning in printed(plan)
    assert ' experts' in printed(plan)
    unquantized = replace(plan, step=job('lora', **options), warning=None)
    assert unquantized.to_dict()['memory']['experts_not_quantized'] == 0
    assert ' experts' not in printed(unquantized) and 'warning' not in printed(unquantized)


@pytest.mark.parametrize('wrong', ['-3', '0', 'nan', 'large', '80000'])
def test_a_memory_size_that_cannot_be_is_refused(make_config, xtune, wrong):
    code, _, err = xtune('plan', make_config(), '--memory', wrong)
    assert code == 2 and '--memory' in err and f'got {wrong}' in err


def test_a_misspelled_option_is_refused(make_config, xtune):
    code, _, err = xtune('plan', make_config(), '--cfg-options', 'activation_checkpoint=all')
    assert code == 2 and 'activation_checkpointing' in err


@pytest.mark.parametrize('method', ['lora', 'qlora', 'full'])
def test_the_lower_bound_is_at_most_what_the_run_needs_and_close_to_it(method, job, model_folder):
    run = job(method, base_model=model_folder(**WIDE), **(QUICK if method == 'full' else LORA))
    estimator = MemoryEstimator(run)
    bound, estimate = estimator.lower_bound(torch.bfloat16), estimator.minimum()
    assert 0.85 * (estimate.resident + estimate.gradients) < bound.total <= estimate.resident + estimate.gradients
    assert bound.total < estimate.peak


@pytest.mark.parametrize('method', ['lora', 'qlora', 'full'])
def test_the_error_of_a_run_that_does_not_fit_suggests_smaller_ones(method, job, model_folder):
    run = job(method, base_model=model_folder())
    bound = MemoryEstimator(run).lower_bound(torch.bfloat16)
    for strategy in ('ddp', 'fsdp2'):
        message = str(does_not_fit('some/model', method_of_model(run.model), strategy, bound, 1, 'a GPU of ours'))
        assert 'some/model' in message and 'a GPU of ours' in message and 'xtune plan' in message
        assert ('qlora preset' in message) == (method != 'qlora') and 'NPROC_PER_NODE=2' in message
        assert ('--strategy fsdp2' in message) == (strategy == 'ddp')


def test_the_lower_bound_of_quantized_weights_is_close_to_their_bytes(job, model_folder):
    run = job('qlora', base_model=model_folder(**WIDE))
    estimator = MemoryEstimator(run)
    model = StepBuilder(run, estimator.config, torch.bfloat16).base_model()
    bound = estimator.lower_bound(torch.bfloat16).frozen
    with fake_tensors() as meter:
        materialize(model, torch.device('cpu'))
        assert bound == pytest.approx(meter.allocated, rel=0.05) and bound <= meter.allocated
