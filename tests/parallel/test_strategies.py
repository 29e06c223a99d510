"""Two ranks with any strategy have the losses of one rank with the same global batch.

One worker imports the libraries and forks the ranks of each case.
"""

import pytest

pytestmark = pytest.mark.integration

LORA = ('ddp', 'zero1', 'zero2', 'zero2_offload', 'zero3', 'zero3_offload', 'fsdp2', 'fsdp2_offload')
CASES = [('lora', name) for name in LORA]
CASES += [('full', name) for name in ('ddp', 'zero2', 'zero3', 'fsdp2')]
CASES += [('qlora', name) for name in ('ddp', 'zero2', 'fsdp2')]
# One of each type; the others run with -m slow.
QUICK = [('lora', 'ddp'), ('full', 'zero3'), ('full', 'fsdp2'), ('qlora', 'fsdp2')]


def strategy(name):
    from xtune.config.strategies import deepspeed_strategy

    return deepspeed_strategy(name) if name.startswith('zero') else {'name': name, 'deepspeed': None}


@pytest.fixture(scope='module')
def run(tmp_path_factory, byte_model, write_config, in_processes, figures):
    """Return a function that runs cases and returns {(method, strategy): figures}."""
    folder = tmp_path_factory.mktemp('strategies')
    shared = {
        'base_model': str(byte_model),
        'val_dataset': 5,
        'pack': True,
        'optimizer.lr': 2e-3,
        'schedule.max_grad_norm': 0.05,
        'validation.every_steps': 3,
        'chat_samples.every_steps': 10,
        'chat_samples.prompts': ['What is 1 plus 2?'],
        'chat_samples.max_new_tokens': 4,
        'checkpoint.every_steps': None,
        'checkpoint.every_epochs': None,
    }

    def case(method, name, precision, steps, accumulate, size):
        options = {
            'strategy': strategy(name),
            'precision': precision,
            'schedule.gradient_accumulation_steps': accumulate,
        }
        options |= {} if method == 'full' else {'lora.lora_dropout': 0.0}  # each rank has its own dropout
        options |= {'activation_checkpointing': 'all' if method == 'qlora' else 'none'}
        options |= {'schedule.max_steps': steps}
        label = f'{method}_{name}_{precision}'
        path = write_config(folder, label, method, **shared, **options)
        return dict(name=label, config=str(path), size=size)

    def run(cases, steps, precision='fp32'):
        alone = [(method, 'one_device') for method in dict(cases)]
        made = [case(*one, precision, steps, 4, 1) for one in alone]
        made += [case(*one, precision, steps, 2, 2) for one in cases]
        in_processes(made, folder)
        return {(m, name): figures(folder / f'{m}_{name}_{precision}') for m, name in [*alone, *cases]}

    return run


@pytest.mark.parametrize(
    ('cases', 'steps'), [(QUICK, 8), pytest.param(CASES, 20, marks=pytest.mark.slow)], ids=['quick', 'all']
)
def test_two_ranks_have_the_losses_of_one(cases, steps, run):
    found = run(cases, steps)
    for method, name in cases:
        one, two = found[method, 'one_device'], found[method, name]
        assert {step for step, _ in one} == set(range(1, steps + 1)) and any(key == 'val_loss' for _, key in one)
        assert max(value for (_, key), value in one.items() if key == 'grad_norm') > 0.05  # some steps are clipped
        assert two == pytest.approx(one, rel=1e-5), (method, name)


@pytest.mark.slow
def test_two_ranks_in_bf16(run):
    """bf16 keeps three digits; the micro-batches are the same, and their gradients are summed in float32."""
    found = run([('lora', 'ddp')], 6, 'bf16')  # a CPU is slow in it
    assert found['lora', 'ddp'] == pytest.approx(found['lora', 'one_device'], rel=1e-3)
