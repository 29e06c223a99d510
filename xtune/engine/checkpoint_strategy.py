"""The strategy object that mmengine requires; it saves and resumes checkpoints. Parallelism is in `strategies/`."""

import warnings
from pathlib import Path
from typing import Any

import torch

from ..compat.mmengine_runner_private import PlacedModelStrategy
from ..methods.residual_init import initial_adapter_state
from ..parallel.collectives import all_gather_objects, raise_on_all_ranks, rank, world_size
from ..registry import STRATEGIES
from . import checkpoint_io
from .checkpoint_writer import PendingCheckpoint
from .rng_state import get_rng_state, set_rng_state


@STRATEGIES.register_module()
class CheckpointStrategy(PlacedModelStrategy):
    """Saves and resumes the trained weights, the optimizer state and the RNG states of all ranks.

    Args:
        state: A `TrainedState`, which reads and writes weights and optimizer state.
    """

    def __init__(self, *, state: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state = state

    def collect_env(self) -> tuple[dict, dict]:
        """Return nothing: mmengine's version runs compilers to get their versions; `xtune env` reports versions."""
        return {}, {}

    def save_checkpoint(
        self, filename: str, *, extra_ckpt: dict | None = None, background: bool = False, **_: Any
    ) -> PendingCheckpoint:
        """Start writing trained weights, optimizer state and RNG states; return an object that finishes it.

        An adapter is one file, written by rank 0. A full model is a folder with one shard per rank: each rank writes
        every `world_size()`-th tensor, so that no rank needs memory for the full model. With `background`, the tensors
        are copied first and written during the next steps; adapters are small and always written immediately.

        Raises:
            CheckpointError: A tensor could not be gathered, or the file could not be written.
        """
        sharded = world_size() > 1 and not self.state.is_adapter
        copy = background and not self.state.is_adapter

        def keep(number: int) -> bool:
            return (number % world_size() if sharded else 0) == rank()

        with raise_on_all_ranks():
            content = dict(
                state_dict=self.state.get(keep, copy),
                optimizer=self.state.optimizer_states(keep, copy),
                rng=all_gather_objects(get_rng_state()),
                **initial_adapter_state(self.state.llm),
                **(extra_ckpt or {}),
            )
        return PendingCheckpoint(content if sharded or rank() == 0 else None, Path(filename), sharded, copy)

    def resume(self, filename: str, **_: Any) -> dict:
        """Load a checkpoint into the model, the optimizer and the RNG, and return it.

        The learning rate follows from the config and the number of completed steps, so a changed `optimizer.lr` or
        `schedule` takes effect. Unchanged options give identical learning rates.

        Raises:
            CheckpointError: It is damaged, unsafe, or belongs to another model.
        """
        checkpoint = checkpoint_io.load(Path(filename), verified=True)  # `train` verified it before slow work
        self.state.set(checkpoint['state_dict'], Path(filename))
        configured = [{k: v for k, v in g.items() if k != 'params'} for g in self.optim_wrapper.param_groups]
        states = checkpoint['optimizer']
        self.state.set_optimizer_states(states.get('state', states))  # 'state': in older checkpoints
        for group, settings in zip(self.optim_wrapper.param_groups, configured, strict=True):
            group.update(settings)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the schedule steps without its optimizer on purpose
            for _ in range(checkpoint['meta']['iter']):
                for scheduler in getattr(self, 'param_schedulers', ()):
                    scheduler.step()
        self._resume_rng(checkpoint)
        return checkpoint

    def _resume_rng(self, checkpoint: dict) -> None:
        states = checkpoint['rng'] if isinstance(checkpoint['rng'], list) else [checkpoint['rng']]
        if rank() < len(states):
            set_rng_state(states[rank()])
        else:  # more ranks than in the saved run: seed a new, reproducible stream
            torch.manual_seed(hash((checkpoint['meta']['iter'], rank())) % 2**63)
