"""`runner.randomness`: the seed of the run stays where only `deterministic` is given."""

import json

import pytest
import torch


@pytest.fixture
def not_deterministic():
    """What such a run sets is for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def test_a_deterministic_run_draws_what_another_does(make_config, xtune, tmp_path, not_deterministic):
    options = {'schedule.max_epochs': 1, 'log.tensorboard': False, 'log.plot': False, 'lora.lora_dropout': 0.5}
    losses = []
    for name, runner in (('plain', {}), ('given', {'runner': {'randomness': {'deterministic': True}}})):
        code, _, err = xtune('train', make_config(name=name, **options, **runner))
        assert code == 0, err
        assert torch.are_deterministic_algorithms_enabled() == bool(runner)
        rows = map(json.loads, (tmp_path / name / 'metrics.jsonl').read_text('utf-8').splitlines())
        losses.append([row['loss'] for row in rows if 'loss' in row])
    assert losses[0] == losses[1]
