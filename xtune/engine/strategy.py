"""How a run is spread over devices. Here: not at all, one GPU or the CPU."""

from pathlib import Path
from typing import Any

import torch
from mmengine._strategy import SingleDeviceStrategy

from ..registry import STRATEGIES
from . import files


@STRATEGIES.register_module()
class OneDevice(SingleDeviceStrategy):
    """Trains on the device the model is on, and saves only what is trained.

    `state` reads and writes what is trained (see `TrainedState`).
    """

    def __init__(self, *, state: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state = state

    def collect_env(self) -> tuple[dict, dict]:
        """Return nothing: mmengine's version starts compilers to ask for their version; `xtune env` reports ours."""
        return {}, {}

    def _init_model_weights(self, model: torch.nn.Module) -> torch.nn.Module:
        return model  # loaded, not initialised

    def _wrap_model(self, model: torch.nn.Module) -> torch.nn.Module:
        return model  # on its device already; quantised weights must not be moved

    def save_checkpoint(self, filename: str, *, extra_ckpt: dict | None = None, **_: Any) -> None:
        """Write what is trained, the optimizer, the schedule and the RNG.

        Raises:
            CheckpointError: The file could not be written.
        """
        content = dict(
            state_dict=self.state.get(),
            optimizer=self.optim_state_dict(),
            param_schedulers=self.scheduler_state_dict() if hasattr(self, 'param_schedulers') else [],
            rng=files.rng_state(),
            **(extra_ckpt or {}),
        )
        files.save(content, Path(filename))

    def resume(self, filename: str, **_: Any) -> dict:
        """Load a checkpoint into the model, the optimizer, the schedule and the RNG, and return it.

        Raises:
            CheckpointError: It is damaged, unsafe, or of another model.
        """
        checkpoint = files.load(Path(filename))
        self.state.set(checkpoint['state_dict'], Path(filename))
        self.load_optim_state_dict(checkpoint['optimizer'])
        if hasattr(self, 'param_schedulers'):
            self.load_scheduler_state_dict(checkpoint['param_schedulers'])
        files.set_rng_state(checkpoint['rng'])
        return checkpoint
