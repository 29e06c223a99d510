"""Trainers for tests: a task, an optimizer over its trained parameters, and the strategy of one device."""

from xtune.engine.strategies import Replicated
from xtune.engine.trainer import Trainer


def make_trainer(task, optimizer, max_grad_norm=1.0, wrappers=(), strategy=None):
    """Return a trainer of `task`; `optimizer` is a torch optimizer over the task's trained parameters."""
    strategy = strategy or Replicated()
    strategy.attach(task, optimizer)
    return Trainer(task, strategy, max_grad_norm, wrappers)
