"""Train one benchmark case with the model of an xtune config in a plain loop: no runner, hooks, data pipeline or logs.

benchmark_peers.py runs it with the case as JSON. It prints the activation checkpointing and writes the result file:

    python -m peer_benchmark.train_bare '{"config": "run.py", "rows": "rows.jsonl", "batch": 4, "steps": 20, ...}'
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from xtune.config.load import load
from xtune.config.strategy_traits import traits_of
from xtune.config.wire import wire
from xtune.data.batches import IGNORE_INDEX, MicroBatch
from xtune.engine.auto_checkpointing import apply_checkpointing
from xtune.engine.optimizations import optimize
from xtune.engine.optimizer import build_optimizer
from xtune.engine.prepare_model import build_llm
from xtune.engine.strategies import Replicated
from xtune.engine.trainer import Trainer
from xtune.utils.device import best_device

from .step_timer import StepTimer


def batches(path: Path, size: int) -> Iterator[MicroBatch]:
    """Yield micro-batches of `size` sequences from `path`. All tokens but the first of a sequence are trained."""
    rows = [json.loads(line)['tokens'] for line in path.read_text(encoding='utf-8').splitlines()]
    for first in range(0, len(rows), size):
        input_ids = torch.tensor(rows[first : first + size])
        targets = torch.nn.functional.pad(input_ids[:, 1:], (0, 1), value=IGNORE_INDEX)
        yield MicroBatch.unpacked(input_ids, targets)


def main(work: dict) -> None:
    """Train with the training step of `xtune train`."""
    config = Path(work['config'])
    job, device = wire(load(config), config.stem), best_device()
    micro_batches = list(batches(Path(work['rows']), work['batch']))
    torch.manual_seed(job.values.seed)
    llm, dtype = build_llm(job.model, device)
    optimized = optimize(job.step, llm, dtype, device, None, num_ranks=1)
    task, strategy = optimized.task, Replicated()
    strategy.attach(
        task, build_optimizer(job.optimizer, traits_of(job.strategy.name, 1), task.trained_parameters().values())
    )
    trainer = Trainer(task, strategy, job.schedule.max_grad_norm, optimized.wrappers)
    option = job.values.activation_checkpointing
    line = apply_checkpointing(option, task, optimized.layers, True, job.optimizer.func, lambda: micro_batches[0])
    print(line, flush=True)
    timer = StepTimer(Path(work['result']), work['steps'])
    task.train()
    for batch in micro_batches:
        timer.add(trainer.train_step([batch]).loss)


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
