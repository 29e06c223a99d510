"""`runner.randomness` with only `deterministic` keeps the seed of the run."""

import json

import pytest
import torch


@pytest.fixture
def reset_deterministic_mode():
    """Reset the deterministic mode, which a run sets for the process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def test_deterministic_run_has_the_same_random_numbers(make_config, xtune, tmp_path, reset_deterministic_mode):
    options = {'schedule.max_epochs': 1, 'log.tensorboard': False, 'log.plot': False, 'lora.lora_dropout': 0.5}
    losses = []
    for name, runner in (('plain', {}), ('given', {'runner': {'randomness': {'deterministic': True}}})):
        code, _, err = xtune('train', make_config(name=name, **options, **runner))
        assert code == 0, err
        assert torch.are_deterministic_algorithms_enabled() == bool(runner)
        rows = map(json.loads, (tmp_path / name / 'metrics.jsonl').read_text('utf-8').splitlines())
        losses.append([row['loss'] for row in rows if 'loss' in row])
    assert losses[0] == losses[1]
