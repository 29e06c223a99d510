"""Two processes of any strategy train as one process does with the same global batch.

One worker imports the libraries and forks the processes of each case.
"""

import pytest

LORA = ('ddp', 'zero1', 'zero2', 'zero2_offload', 'zero3', 'zero3_offload', 'fsdp2', 'fsdp2_offload')
CASES = [('lora', name) for name in LORA]
CASES += [('full', name) for name in ('ddp', 'zero2', 'zero3', 'fsdp2')]
CASES += [('qlora', name) for name in ('ddp', 'zero2', 'fsdp2')]
STEPS = 20


def strategy(name):
    from xtune.config.strategies import deepspeed_strategy

    return deepspeed_strategy(name) if name.startswith('zero') else {'name': name, 'deepspeed': None}


@pytest.fixture(scope='module')
def runs(tmp_path_factory, byte_model, write_config, in_processes, figures):
    """Run every case and its reference; return a function (method, strategy, precision) -> figures."""
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

    def case(method, name, precision, accumulate, size):
        own = {'strategy': strategy(name), 'precision': precision, 'schedule.accumulate': accumulate}
        own |= {} if method == 'full' else {'lora.lora_dropout': 0.0}  # drawn by each process for itself
        own |= {'checkpointing': 'all' if method == 'qlora' else 'none'}
        own |= {'schedule.max_steps': STEPS if precision == 'fp32' else 6}  # a CPU is slow in bf16
        label = f'{method}_{name}_{precision}'
        path = write_config(folder, label, method, **shared, **own)
        return dict(name=label, config=str(path), size=size)

    cases = [case(method, 'one_device', 'fp32', 4, 1) for method in ('lora', 'full', 'qlora')]
    cases += [case(method, name, 'fp32', 2, 2) for method, name in CASES]
    cases += [case('lora', 'one_device', 'bf16', 4, 1), case('lora', 'ddp', 'bf16', 2, 2)]
    in_processes(cases, folder)
    return lambda method, name, precision='fp32': figures(folder / f'{method}_{name}_{precision}')


@pytest.mark.parametrize(('method', 'name'), CASES)
def test_two_processes_train_as_one(method, name, runs):
    one, two = runs(method, 'one_device'), runs(method, name)
    assert {step for step, _ in one} == set(range(1, STEPS + 1)) and any(key == 'val_loss' for _, key in one)
    assert max(value for (_, key), value in one.items() if key == 'grad_norm') > 0.05  # some steps are clipped
    assert two == pytest.approx(one, rel=1e-5)


def test_two_processes_in_bf16(runs):
    """bf16 keeps three digits; the micro-batches are the same, and their gradients are summed in float32."""
    assert runs('lora', 'ddp', 'bf16') == pytest.approx(runs('lora', 'one_device', 'bf16'), rel=1e-3)
