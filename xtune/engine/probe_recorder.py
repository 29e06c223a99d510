"""Computes the probe logits of a run on some of its samples; see hf_format/probe_logits.py."""

import numpy as np
import torch

from ..data.training_data import TrainingData
from ..hf_format.probe_logits import Probe, ProbeInfo, logits_of, probe_ids
from ..tasks.sft import SupervisedFineTuning

_CANDIDATES = 64  # samples to choose from, because samples of one token are unusable


class ProbeRecorder:
    """Computes the probe logits of a task. All ranks call it, because a sharded model needs all ranks.

    Args:
        task: The model in training.
        ids: Token ids [S] of each sample.

    Attributes:
        last: The latest probe; None before the first call.
    """

    def __init__(self, task: SupervisedFineTuning, ids: list[torch.Tensor]) -> None:
        self.task, self.ids = task, ids
        self.last: Probe | None = None

    def __call__(self, step: int) -> Probe | None:
        """Return the probe after `step` optimizer steps; None without usable samples."""
        if not self.ids:
            return None
        training = self.task.training
        self.task.eval()
        try:
            with self.task.plain_sequences(), self.task.autocast():
                logits = logits_of(self.task.llm, self.ids, self.task.device)
        finally:
            self.task.train(training)
        about = ProbeInfo(step, str(self.task.dtype).removeprefix('torch.'), base_quantization(self.task.llm))
        self.last = Probe.of(self.ids, logits, about)
        return self.last


def probe_samples(data: TrainingData) -> list[torch.Tensor]:
    """Return token ids [S] of some validation samples, or of training samples if there is no validation data."""
    split = data.val or data.train
    indices = np.unique(split.sequences.ranges[:, 0])
    candidates = indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), _CANDIDATES)).astype(int))]
    return probe_ids([np.asarray(split.store.ids(int(index))) for index in candidates])


def base_quantization(llm: torch.nn.Module) -> str | None:
    """Return the format of the base: 'nf4', 'fp4', 'int8', 'float8', another method's name, or None: not quantized."""
    if any(type(module).__name__ == 'Float8Linear' for module in llm.modules()):
        return 'float8'
    config = getattr(getattr(llm, 'config', None), 'quantization_config', None)
    if config is None:
        return None
    values = config if isinstance(config, dict) else config.to_dict()
    if values.get('dequantize'):
        return None
    if values.get('load_in_8bit'):
        return 'int8'
    method = values.get('quant_method')
    return values.get('bnb_4bit_quant_type') if values.get('load_in_4bit') else str(getattr(method, 'value', method))
