"""Data and trainers for tests."""

from xtune.data.rank_shard import SINGLE_RANK
from xtune.engine.build_run_data import build_run_data
from xtune.engine.strategies import Replicated
from xtune.engine.trainer import Trainer


def build_data_of(job, shard=SINGLE_RANK):
    """Return the data of a wired config."""
    return build_run_data(job.model, job.data_spec, job.chat_samples, shard)


def make_trainer(task, optimizer, max_grad_norm=1.0, wrappers=(), strategy=None):
    """Return a trainer of `task`; `optimizer` is a torch optimizer over the task's trained parameters."""
    strategy = strategy or Replicated()
    strategy.attach(task, optimizer)
    return Trainer(task, strategy, max_grad_norm, wrappers)
