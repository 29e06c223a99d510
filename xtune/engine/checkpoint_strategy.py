"""mmengine's strategy object of a run: it saves and resumes checkpoints. `strategies/` has the parallelism."""

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


@STRATEGIES.register_module()
class CheckpointStrategy(PlacedModelStrategy):
    """Saves and resumes what is trained, the optimizer state and the RNG of every rank.

    `state` reads and writes what is trained (see `TrainedState`).
    """

    def __init__(self, *, state: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state = state

    def collect_env(self) -> tuple[dict, dict]:
        """Return nothing: mmengine's version starts compilers to ask for their version; `xtune env` reports ours."""
        return {}, {}

    def save_checkpoint(
        self, filename: str, *, extra_ckpt: dict | None = None, background: bool = False, **_: Any
    ) -> PendingCheckpoint:
        """Start to write the trained tensors, optimizer state and RNG of every rank; return an object that finishes it.

        An adapter is one file, written by the main process. All weights of a model are a folder to which every process
        writes those whose number is its own, so that none holds the model. With `background` they are copied first, and
        written while the run goes on; an adapter takes no time.

        Raises:
            CheckpointError: Something could not be gathered or written.
        """
        split, copy = world_size() > 1 and not self.state.is_adapter, background and not self.state.is_adapter

        def mine(number: int) -> bool:
            return (number % world_size() if split else 0) == rank()

        with raise_on_all_ranks():
            content = dict(
                state_dict=self.state.get(mine, copy),
                optimizer=self.state.optimizer_states(mine, copy),
                rng=all_gather_objects(checkpoint_io.rng_state()),
                **initial_adapter_state(self.state.llm),
                **(extra_ckpt or {}),
            )
        return PendingCheckpoint(content if split or rank() == 0 else None, Path(filename), split, copy)

    def resume(self, filename: str, **_: Any) -> dict:
        """Load a checkpoint into the model, the optimizer and the RNG, and return it.

        Learning rate and schedule follow from the config and the steps done, so that a changed `optimizer.lr` or
        `schedule` counts; unchanged, they give the very same numbers.

        Raises:
            CheckpointError: It is damaged, unsafe, or of another model.
        """
        checkpoint = checkpoint_io.load(Path(filename), verified=True)  # `train` did, before anything slow
        self.state.set(checkpoint['state_dict'], Path(filename))
        configured = [{k: v for k, v in g.items() if k != 'params'} for g in self.optim_wrapper.param_groups]
        states = checkpoint['optimizer']
        self.state.set_optimizer_states(states.get('state', states))  # 'state': before it was saved by parameter
        for group, settings in zip(self.optim_wrapper.param_groups, configured, strict=True):
            group.update(settings)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # stepping a schedule without its optimizer is what is wanted here
            for _ in range(checkpoint['meta']['iter']):
                for scheduler in getattr(self, 'param_schedulers', ()):
                    scheduler.step()
        self._resume_rng(checkpoint, Path(filename))
        return checkpoint

    def _resume_rng(self, checkpoint: dict, origin: Path) -> None:
        states = checkpoint['rng'] if isinstance(checkpoint['rng'], list) else [checkpoint['rng']]
        if rank() < len(states):
            checkpoint_io.set_rng_state(states[rank()])
        else:  # more processes than wrote it: a new stream of numbers, the same each time
            torch.manual_seed(hash((checkpoint['meta']['iter'], rank())) % 2**63)
