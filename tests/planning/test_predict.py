"""Slices extrapolate to the whole, and count what real tensors take."""

import gc
from dataclasses import replace

import pytest
import torch

from xtune.engine.prepare_model import add_meta_adapter
from xtune.errors import ModelError
from xtune.methods.meta_model import build_meta_model
from xtune.models.legacy.alibi import ATTENTION
from xtune.models.legacy.alibi_config import BaichuanAlibiConfig
from xtune.models.loading.hf_config import load_hf_config
from xtune.planning.compiled_estimate import CountedGraphs
from xtune.planning.meta_model import keep_layers, kinds, planned_meta_model
from xtune.planning.partial_model import measure, trained_slice
from xtune.planning.phase_meters import Counter, without_values
from xtune.planning.planner import CONTEXT, Planner
from xtune.planning.predict import CUBLAS
from xtune.planning.variants import in_bf16


def whole_peak(job):
    config = load_hf_config(job.values.base_model, job.load_llm)
    found = measure(planned_meta_model(job, config, torch.bfloat16), job, torch.bfloat16, None, CountedGraphs())
    skipped = '1' if job.schedule.accumulate == 1 else '0'
    return CUBLAS + max(phase.peak for name, phase in found.phases.items() if not name.endswith(skipped))


@pytest.mark.parametrize(
    ('method', 'options'),
    [
        pytest.param(
            'qlora',
            {'lora.target_modules': ['q_proj', 'down_proj'], 'schedule.batch_size': 64},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'lora',
            {'checkpointing': 3, 'schedule.batch_size': 32, 'lora.target_modules': ['q_proj']},
            marks=pytest.mark.slow,
        ),
        ('full', {'checkpointing': 'none', 'schedule.accumulate': 1, 'max_length': 64, 'speed.compile': False}),
        ('full', {'checkpointing': 1, 'schedule.batch_size': 64, 'speed.fused_loss': False, 'speed.compile': False}),
    ],
)
def test_slices_tell_the_peak_of_four_layers(method, options, job, shape):
    made = job(method, base_model=shape(num_hidden_layers=4, vocab_size=2000), **options)
    found = Planner(made).counted(made)
    assert found.peak == pytest.approx(whole_peak(made), rel=0.02)
    assert found.speed is None and found.peak > found.held > found.frozen
    assert found.recomputed == (0 if made.values.checkpointing == 'none' else found.recomputed or 4)


@pytest.mark.parametrize('options', [{}, {'pack': False}, {'llm.attn_implementation': 'sdpa'}])
def test_a_model_that_takes_only_its_own_attention_is_built_with_it(job, options):
    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=500)
    model = planned_meta_model(job('qlora', **options), BaichuanAlibiConfig(**sizes), torch.bfloat16)
    assert model.config._attn_implementation == ATTENTION


@pytest.mark.parametrize('tied', [pytest.param(True, marks=pytest.mark.slow), False])
def test_what_the_loss_takes_is_gone_when_the_gradients_of_all_layers_are_there(job, shape, tied):
    options = {'schedule.accumulate': 1, 'schedule.batch_size': 4, 'speed.compile': False, 'checkpointing': 'all'}
    sizes = dict(num_hidden_layers=12, hidden_size=128, intermediate_size=512, vocab_size=8000)
    made = job('full', base_model=shape(**sizes, tie_word_embeddings=tied), max_length=64, **options)
    assert Planner(made).counted(made).peak == pytest.approx(whole_peak(made), rel=0.02)


def test_offload_takes_no_more_than_recomputing_where_gradients_are_most(job, shape):
    options = {'schedule.accumulate': 1, 'speed.compile': False, 'max_length': 64}
    made = job('full', base_model=shape(num_hidden_layers=12, vocab_size=2000), **options)
    planner, peaks = Planner(made), []
    for way in ('all', 'offload'):
        found = planner.counted(replace(made, values=replace(made.values, checkpointing=way)))
        peaks.append((found.peak, found.where))
    assert peaks[0] == peaks[1] and peaks[0][1] not in ('forward', 'loss')


@pytest.mark.slow
def test_layers_of_several_kinds_are_told_apart(job, shape):
    pattern = ['sliding_attention', 'sliding_attention', 'full_attention']
    kind = dict(model_type='qwen2', use_sliding_window=True, sliding_window=16, layer_types=pattern)
    options = {'speed.compile': False, 'schedule.batch_size': 32}
    made = job('full', base_model=shape(num_hidden_layers=3, vocab_size=2000, **kind), checkpointing=2, **options)
    assert (
        len(set(kinds(planned_meta_model(made, load_hf_config(made.values.base_model, made.load_llm), torch.bfloat16))))
        == 2
    )
    assert Planner(made).counted(made).peak == pytest.approx(whole_peak(made), rel=0.02)


def test_auto_keeps_what_a_card_has_room_for_and_offload_keeps_nothing_between_layers(job, shape):
    options = {'schedule.batch_size': 16, 'speed.compile': False, 'lora.target_modules': ['q_proj']}
    made = job('lora', base_model=shape(num_hidden_layers=12, vocab_size=2000), **options)
    planner = Planner(made)

    def peak(checkpointing, room=0):
        changed = replace(made, values=replace(made.values, checkpointing=checkpointing))
        found = planner.counted(changed, room + CONTEXT)
        return found.peak, found.recomputed

    counts = [peak(count) for count in range(13)]
    assert [count for _, count in counts] == list(range(13))
    peaks = [most for most, _ in counts]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > 1.2 * peaks[12]
    assert peak('none') == counts[0] and peak('all') == counts[12]
    for limit, count in ((peaks[0], 0), (peaks[5], 5), (peaks[5] - 1, 6), (peaks[12] - 1, 12), (0, 12)):
        assert peak('auto', limit) == counts[count]
    between = 16 * 128 * 64 * 2
    assert peaks[12] - peak('offload')[0] == pytest.approx(9 * between, rel=0.05)
    with pytest.raises(ModelError, match='has 12 layers'):
        peak(13)


@pytest.mark.parametrize(
    ('method', 'pack'),
    [
        pytest.param('lora', False, marks=pytest.mark.slow),
        pytest.param('qlora', True, marks=pytest.mark.slow),
        ('full', True),
    ],
)
def test_tensors_without_values_count_as_real_ones(method, pack, job):
    options = {'lora.lora_dropout': 0.0} if method != 'full' else {}
    # The kernel of packed rows is one of GPUs.
    made = job(method, pack=pack, **{'speed.varlen': False}, **options)

    fake = without_values()

    def run(context):
        config = load_hf_config(made.values.base_model, made.load_llm)
        if context is fake:
            model = planned_meta_model(made, config, torch.bfloat16)
        else:
            model = build_meta_model(made.model, config, torch.bfloat16)
        keep_layers(model, [0])
        model = add_meta_adapter(model, made.model)
        with context as meter:
            found = trained_slice(model, made, torch.bfloat16, torch.device('cpu'), meter)
        del model
        gc.collect()
        return found.phases

    real, fake = run(Counter()), run(fake)
    assert list(real) == list(fake)
    for name in real:
        assert fake[name].peak == pytest.approx(real[name].peak, rel=0.01, abs=2000), name
        assert fake[name].after == pytest.approx(real[name].after, rel=0.01, abs=2000), name


def test_weights_are_those_of_the_type(job, shape):
    folder = shape(num_hidden_layers=2, hidden_size=256, intermediate_size=512, vocab_size=2000)
    few = {'lora.target_modules': ['q_proj'], 'schedule.batch_size': 1, 'max_length': 32, 'checkpointing': 'none'}
    less = dict(base_model=folder, **few, **{'speed.compile': False})
    held = {method: Planner(job(method, **less)) for method in ('lora', 'qlora')}
    held['full'] = Planner(job('full', base_model=folder, checkpointing='none', **{'speed.compile': False}))
    found = {method: planner.counted(planner.job) for method, planner in held.items()}
    parameters = held['full'].size().parameters
    assert held['full'].size().trained == parameters
    assert found['lora'].frozen == pytest.approx(2 * parameters, rel=0.01)
    embedding = 2 * 2000 * 256
    assert embedding < found['qlora'].frozen < embedding + 0.6 * (parameters - 2000 * 256)
    assert found['full'].frozen < 20_000  # buffers
    assert found['full'].held == pytest.approx((2 + 4 + 8) * parameters, rel=0.01)
    assert found['full'].gradients == pytest.approx(4 * parameters, rel=0.01)
    assert found['full'].optimizer == pytest.approx(8 * parameters, rel=0.01)


@pytest.mark.slow
def test_bitsandbytes_optimizers_are_counted(job, shape):
    folder, kind = shape(num_hidden_layers=1), 'bitsandbytes.optim.'
    sizes = {}
    for name in ('AdamW8bit', 'AdamW32bit', 'PagedAdamW32bit', 'Lion32bit'):
        options = {'optimizer.type': kind + name, 'max_length': 16, 'speed.compile': False}
        made = job('full', base_model=folder, checkpointing='none', **options)
        sizes[name] = Planner(made).counted(made).optimizer
    parameters = Planner(made).size().parameters
    assert sizes['AdamW32bit'] == pytest.approx(8 * parameters, rel=0.01)
    assert sizes['AdamW8bit'] == pytest.approx(2 * parameters, rel=0.05)
    assert sizes['Lion32bit'] == pytest.approx(4 * parameters, rel=0.01)
    assert sizes['PagedAdamW32bit'] < 0.1 * parameters


def test_auto_means_bf16_and_other_types_stay(job):
    assert in_bf16(job(precision='auto')).values.precision == 'bf16'
    assert in_bf16(job(precision='fp32')).values.precision == 'fp32'


@pytest.mark.slow
@pytest.mark.parametrize('pack', [False, True])
def test_slices_with_values_run_and_are_timed(pack, job, shape):
    few = {'schedule.batch_size': 1, 'max_length': 32, 'lora.target_modules': ['q_proj'], 'checkpointing': 1}
    made = job(base_model=shape(num_hidden_layers=4, vocab_size=100), pack=pack, **few)
    found = Planner(made).measured(made, torch.device('cpu'), 2**40)
    assert found.speed > 0 and found.seconds > 0 and found.recomputed == 1
    without = replace(made, speed=replace(made.speed, compile=False))
    assert found.peak == pytest.approx(Planner(without).counted(without).peak, rel=0.1)


def test_packed_rows_need_no_mask_where_the_kernel_takes_them(job, shape):
    few = {'schedule.batch_size': 4, 'max_length': 512, 'speed.compile': False, 'checkpointing': 'none'}
    folder = shape(num_hidden_layers=1, vocab_size=100)
    peaks = []
    for varlen in (True, False):
        made = job(base_model=folder, pack=True, **few, **{'speed.varlen': varlen})
        peaks.append(Planner(made).counted(made).peak)
    assert peaks[1] - peaks[0] >= 4 * 512 * 512
