"""`load_from` loads the same weights with every strategy."""

import pytest
import torch

from xtune.config.strategies import deepspeed_strategy
from xtune.engine import checkpoint_io


@pytest.mark.slow
@pytest.mark.parametrize('method', ['lora', 'full'])
def test_two_ranks_start_from_the_weights_of_an_earlier_run(method, tmp_path, byte_model, write_config, in_processes):
    shared = {'base_model': str(byte_model), 'checkpoint.every_epochs': None, 'checkpoint.every_steps': None}

    def case(name, size, **options):
        path = write_config(tmp_path, name, method, **shared, **options)
        return dict(name=name, config=str(path), size=size)

    init = {'lora.init_lora_weights': 'gaussian'} if method == 'lora' else {}
    # Two ranks write all weights as a folder of shards.
    in_processes([case('first', 2, **init, **{'schedule.max_steps': 2, 'strategy.name': 'ddp'})], tmp_path)
    origin = tmp_path / 'first' / 'iter_2.pth'
    assert origin.is_dir() == (method == 'full')
    no_update = {'load_from': str(origin), 'optimizer.lr': 0.0, 'schedule.max_steps': 1, 'seed': 7}
    names = ('ddp', 'fsdp2', 'zero2', 'zero3')
    strategies = {n: deepspeed_strategy(n) if n.startswith('zero') else {'name': n, 'deepspeed': None} for n in names}
    in_processes([case(name, 2, strategy=strategies[name], **no_update) for name in names], tmp_path)
    expected = checkpoint_io.load(origin)['state_dict']
    for name in names:
        state = checkpoint_io.load(tmp_path / name / 'iter_1.pth')['state_dict']
        assert set(state) == set(expected) and all(torch.equal(state[n], expected[n]) for n in expected), name
        assert f'loaded from {origin} (step 2 of run first)' in (tmp_path / f'{name}_rank_0.log').read_text()
