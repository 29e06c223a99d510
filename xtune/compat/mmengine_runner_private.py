"""Private names of mmengine 0.10 in its runner and strategies. Imports torch, which reading a config must not."""

import torch
from mmengine._strategy import SingleDeviceStrategy
from mmengine.runner import FlexibleRunner


class PlacedModelStrategy(SingleDeviceStrategy):
    """A strategy that takes the model as it is.

    mmengine has no public module for strategies, and no public switch for the two steps below.
    """

    def _init_model_weights(self, model: torch.nn.Module) -> torch.nn.Module:
        return model  # loaded, not initialized

    def _wrap_model(self, model: torch.nn.Module) -> torch.nn.Module:
        return model  # on its device already; quantized weights must not be moved


class RunnerWithoutEnvironmentLog(FlexibleRunner):
    """A runner that does not log the environment, which `xtune env` reports; no public switch turns it off."""

    def _log_env(self) -> None:
        pass
