"""Partial models extrapolate to the full model, and fake tensors take as many bytes as real ones."""

import gc
from dataclasses import replace

import pytest
import torch

from xtune.errors import ModelError
from xtune.models.legacy.alibi import ATTENTION
from xtune.models.legacy.alibi_config import BaichuanAlibiConfig
from xtune.ops.float8_linear import Float8Config
from xtune.planning.estimator import MemoryEstimator
from xtune.planning.partial_model import keep_layers, types_of_layers
from xtune.planning.partial_run import profile_steps, run_partial_model
from xtune.planning.phase_meters import TensorMeter, fake_tensors
from xtune.planning.step_builder import StepBuilder
from xtune.planning.step_estimate import CUBLAS
from xtune.planning.units import CONTEXT
from xtune.planning.variants import in_bf16

EAGER = {'speed.compile': False}
# The gradients of all layers take more than the loss and the activations.
WITH_LARGE_LAYERS = dict(num_hidden_layers=4, hidden_size=128, intermediate_size=512, vocab_size=2000)
ONE_MICRO_BATCH = {'schedule.gradient_accumulation_steps': 1, 'activation_checkpointing': 'all', 'max_length': 64}


def estimate(job):
    return MemoryEstimator(job).estimate(job)


def builder_of(job, **values):
    return StepBuilder(job, MemoryEstimator(job).config, torch.bfloat16, **values)


def full_model_peak(job):
    """Return the peak of a run of all layers."""
    builder = builder_of(job)
    run = run_partial_model(builder.base_model(), builder)
    other_micro_batch = '1' if job.schedule.gradient_accumulation_steps == 1 else '0'
    return CUBLAS + max(phase.peak for name, phase in run.phases.items() if not name.endswith(other_micro_batch))


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
            {'activation_checkpointing': 3, 'schedule.batch_size': 32, 'lora.target_modules': ['q_proj']},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'full',
            {'activation_checkpointing': 'none', 'schedule.gradient_accumulation_steps': 1},
            marks=pytest.mark.slow,
        ),
        ('full', {'activation_checkpointing': 1, 'schedule.batch_size': 64, 'speed.chunked_cross_entropy': False}),
    ],
)
def test_partial_models_give_the_peak_of_four_layers(method, options, job, model_folder):
    run = job(method, base_model=model_folder(num_hidden_layers=4), **options, **EAGER)
    found = estimate(run)
    assert found.peak == pytest.approx(full_model_peak(run), rel=0.02)
    assert found.speed is None and found.peak > found.resident > found.frozen
    assert found.checkpointed == {'none': 0, 'auto': 4}.get(
        run.model.activation_checkpointing, run.model.activation_checkpointing
    )


@pytest.mark.parametrize('options', [{}, {'pack': False}, {'llm.attn_implementation': 'sdpa'}])
def test_a_model_with_a_single_attention_implementation_is_built_with_it(job, options):
    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=500)
    model = StepBuilder(job('qlora', **options), BaichuanAlibiConfig(**sizes), torch.bfloat16).base_model()
    assert model.config._attn_implementation == ATTENTION


@pytest.mark.slow
@pytest.mark.parametrize('tied', [True, False])
def test_the_memory_of_the_loss_is_free_when_all_gradients_exist(job, model_folder, tied):
    run = job('full', base_model=model_folder(**WITH_LARGE_LAYERS, tie_word_embeddings=tied), **ONE_MICRO_BATCH)
    assert estimate(run).peak == pytest.approx(full_model_peak(run), rel=0.02)


def test_offloading_saves_nothing_where_gradients_decide_the_peak(job, model_folder):
    run = job('full', base_model=model_folder(**WITH_LARGE_LAYERS, tie_word_embeddings=False), **ONE_MICRO_BATCH)
    estimator = MemoryEstimator(run)
    checkpointed, offloaded = (
        estimator.estimate(run.with_model(activation_checkpointing=way)) for way in ('all', 'offload')
    )
    assert (checkpointed.peak, checkpointed.phase) == (offloaded.peak, offloaded.phase)
    assert checkpointed.phase not in ('forward', 'loss')


@pytest.mark.slow
def test_each_layer_type_has_its_own_cost(job, model_folder):
    pattern = ['sliding_attention', 'sliding_attention', 'full_attention']
    values = dict(model_type='qwen2', use_sliding_window=True, sliding_window=16, layer_types=pattern)
    options = {'schedule.batch_size': 32, 'activation_checkpointing': 2, **EAGER}
    run = job('full', base_model=model_folder(num_hidden_layers=3, **values), **options)
    assert len(set(types_of_layers(builder_of(run).base_model()))) == 2
    assert estimate(run).peak == pytest.approx(full_model_peak(run), rel=0.02)


def test_auto_checkpoints_the_fewest_layers_that_fit_and_offload_saves_the_layer_inputs(job, model_folder):
    options = {'schedule.batch_size': 16, 'lora.target_modules': ['q_proj']}
    run = job('lora', base_model=model_folder(num_hidden_layers=12), **options)
    estimator = MemoryEstimator(run)

    def peak(checkpointing, limit=0):
        found = estimator.estimate(run.with_model(activation_checkpointing=checkpointing), limit + CONTEXT)
        return found.peak, found.checkpointed

    by_count = [peak(count) for count in range(13)]
    assert [count for _, count in by_count] == list(range(13))
    peaks = [most for most, _ in by_count]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > 1.2 * peaks[12]
    assert peak('none') == by_count[0] and peak('all') == by_count[12]
    for limit, count in ((peaks[0], 0), (peaks[5], 5), (peaks[5] - 1, 6), (peaks[12] - 1, 12), (0, 12)):
        assert peak('auto', limit) == by_count[count]
    layer_input = 16 * 128 * 64 * 2
    assert peaks[12] - peak('offload')[0] == pytest.approx(9 * layer_input, rel=0.05)
    with pytest.raises(ModelError, match='activation_checkpointing=13.* 12 '):
        peak(13)


@pytest.mark.parametrize(
    ('method', 'pack'),
    [
        pytest.param('lora', False, marks=pytest.mark.slow),
        pytest.param('qlora', True, marks=pytest.mark.slow),
        ('full', True),
    ],
)
def test_fake_tensors_take_as_many_bytes_as_real_ones(method, pack, job):
    options = {'lora.lora_dropout': 0.0} if method != 'full' else {}
    # The varlen kernel runs on GPUs only.
    run = job(method, pack=pack, **{'speed.varlen_attention': False}, **options)

    def phases(context, device):
        builder = builder_of(run)
        model = replace(builder, device=device).base_model()
        keep_layers(model, [0])
        model = builder.with_adapter(model)
        with context as meter:
            found = profile_steps(model, builder, meter)
        del model
        gc.collect()
        return found.phases

    real, fake = phases(TensorMeter(), torch.device('cpu')), phases(fake_tensors(), None)
    assert list(real) == list(fake)
    for name in real:
        assert fake[name].peak == pytest.approx(real[name].peak, rel=0.01, abs=2000), name
        assert fake[name].allocated == pytest.approx(real[name].allocated, rel=0.01, abs=2000), name


def test_weights_have_the_bytes_of_their_dtype(job, model_folder):
    sizes = dict(hidden_size=512, intermediate_size=2048, num_attention_heads=8)
    quick = {
        'activation_checkpointing': 'all',
        'schedule.batch_size': 1,
        'max_length': 32,
        'base_model': model_folder(**sizes),
    }
    lora, qlora = (
        estimate(job(method, **quick, **{'lora.target_modules': ['q_proj']})) for method in ('lora', 'qlora')
    )
    estimator = MemoryEstimator(job('full', **quick))
    full, parameters = estimator.minimum(), estimator.sizes.parameters
    assert estimator.sizes.trained == parameters
    assert lora.frozen == pytest.approx(2 * parameters, rel=0.01)
    embedding = 2 * 2000 * 512
    assert embedding < qlora.frozen < embedding + 0.6 * (parameters - 2000 * 512)
    assert full.frozen < 20_000  # buffers
    assert full.resident == pytest.approx((2 + 4 + 8) * parameters, rel=0.01)
    assert full.gradients == pytest.approx(4 * parameters, rel=0.01)
    assert full.optimizer == pytest.approx(8 * parameters, rel=0.01)


@pytest.mark.slow
def test_float8_weights_take_two_bytes_each_and_scales(job, model_folder):
    run = job(
        base_model=model_folder(hidden_size=128, intermediate_size=512, vocab_size=500), activation_checkpointing='none'
    )
    bf16, float8 = estimate(run), estimate(replace(run, quantization=Float8Config))
    assert bf16.frozen < float8.frozen < 1.1 * bf16.frozen


@pytest.mark.slow
def test_bitsandbytes_optimizers_are_counted(job, model_folder):
    folder, sizes = model_folder(vocab_size=50_000), {}
    for name in ('AdamW8bit', 'AdamW32bit', 'PagedAdamW32bit', 'Lion32bit'):
        options = {'optimizer.type': f'bitsandbytes.optim.{name}', 'max_length': 16}
        run = job('full', base_model=folder, activation_checkpointing='none', **options)
        sizes[name] = estimate(run).optimizer
    parameters = MemoryEstimator(run).sizes.parameters
    assert sizes['AdamW32bit'] == pytest.approx(8 * parameters, rel=0.01)
    assert sizes['AdamW8bit'] == pytest.approx(2 * parameters, rel=0.05)
    assert sizes['Lion32bit'] == pytest.approx(4 * parameters, rel=0.01)
    assert sizes['PagedAdamW32bit'] == sizes['AdamW32bit']


def test_auto_precision_means_bf16_and_other_types_stay(job):
    assert in_bf16(job(precision='auto')).model.precision == 'bf16'
    assert in_bf16(job(precision='fp32')).model.precision == 'fp32'


@pytest.mark.slow
@pytest.mark.parametrize('pack', [False, True])
def test_partial_models_with_values_run_and_are_timed(pack, job, model_folder):
    few = {'schedule.batch_size': 1, 'max_length': 32, 'lora.target_modules': ['q_proj'], 'activation_checkpointing': 1}
    run = job(base_model=model_folder(num_hidden_layers=4, vocab_size=100), pack=pack, **few)
    found = MemoryEstimator(run).profile(run, torch.device('cpu'), 2**40)
    assert found.speed > 0 and found.seconds > 0 and found.checkpointed == 1
    assert found.peak == pytest.approx(estimate(run).peak, rel=0.1)


@pytest.mark.slow
def test_packed_sequences_need_no_mask_where_the_varlen_kernel_runs(job, model_folder):
    few = {
        'schedule.batch_size': 4,
        'max_length': 512,
        'activation_checkpointing': 'none',
        'lora.target_modules': ['q_proj'],
    }
    folder = model_folder(vocab_size=100)
    varlen, masked = (
        estimate(job(base_model=folder, pack=True, **few, **{'speed.varlen_attention': on})) for on in (True, False)
    )
    assert masked.peak - varlen.peak >= 4 * 512 * 512
