"""Probe logits: logits of the trained model on a few training samples, stored to verify exports.

A checkpoint and all its exports contain the probe. An exported, merged or split model recomputes the same positions and
is refused if they differ. This detects errors between training and the exported files, including errors that the
writer and the reader of the files share.

Full logits have one value per token of the vocabulary, so only some columns are stored: those of the most likely
tokens, which have most of the probability, and some spread evenly over the vocabulary.

Legend: T positions of all samples, S tokens of one sample, V vocabulary, K stored columns.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ModelError

# Not .safetensors: inference servers load every such file in a model folder as weights.
FILE = 'xtune_probe.npz'
SAMPLES, TOKENS = 4, 128  # maximum number of samples, and of tokens of each
POSITIONS = 64  # the last positions of each sample, because prompts come first
_MIN_LOG_PROB = -100.0  # log probabilities, for example of masked tokens, are clamped to this
_LIKELIEST, _SPREAD = 64, 64  # maximum number of stored columns of each type


@dataclass(frozen=True)
class ProbeInfo:
    """How the probe's logits were computed.

    Attributes:
        step: Optimizer steps done.
        precision: The compute type, such as 'bfloat16'.
        base: Storage type of the frozen base in training: 'nf4', 'int8', 'float8', or None if it is not quantized.
    """

    step: int
    precision: str
    base: str | None


@dataclass(frozen=True)
class Probe:
    """Token ids of some samples, and log probabilities of the model at their positions.

    Attributes:
        ids: Token ids [S] of each sample; the probed positions are the last POSITIONS of it.
        columns_TK: Token ids whose log probabilities are stored; the most likely come first.
        log_probs_TK: Their log probabilities, float32.
        likeliest: Number of columns of the most likely tokens.
        scale: Root mean square over the positions of the standard deviation of a position's logits.
        about: How they were computed.
    """

    ids: list[torch.Tensor]
    columns_TK: torch.Tensor
    log_probs_TK: torch.Tensor
    likeliest: int
    scale: float
    about: ProbeInfo

    @classmethod
    def of(cls, ids: list[torch.Tensor], logits: Sequence[torch.Tensor], about: ProbeInfo) -> 'Probe':
        """Return the probe of a model with the `logits` [S, V] of each of the samples `ids` [S]."""
        columns, stored, deviations = [], [], []
        for logits_SV in logits:
            log_probs_SV = _log_probs(logits_SV)
            size = log_probs_SV.shape[-1]
            top_SK = log_probs_SV.topk(min(_LIKELIEST, size), -1).indices
            spread_K = torch.linspace(0, size - 1, min(_SPREAD, size), device=top_SK.device).long()
            columns_SK = torch.cat([top_SK, spread_K.expand(len(top_SK), -1)], -1)
            columns.append(columns_SK.int().cpu())
            stored.append(log_probs_SV.gather(-1, columns_SK).cpu())
            # Without masked tokens, which would make every difference look small.
            deviations.append(torch.stack([row_V[row_V > _MIN_LOG_PROB].std() for row_V in log_probs_SV]).cpu())
        scale = torch.cat(deviations).square().mean().sqrt().item()
        return cls(ids, torch.cat(columns), torch.cat(stored), min(_LIKELIEST, size), scale, about)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of tensors and plain values, for a checkpoint."""
        return dict(vars(self), about=asdict(self.about))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'Probe':
        """Return the probe from the result of `to_dict`."""
        return cls(**{**values, 'about': ProbeInfo(**values['about'])})

    def write(self, folder: Path) -> None:
        """Write the probe into `folder`, next to the weights."""
        plain = dict(likeliest=self.likeliest, scale=self.scale, about=asdict(self.about))
        np.savez_compressed(
            folder / FILE,
            columns=self.columns_TK.numpy(),
            log_probs=self.log_probs_TK.numpy(),
            ids=torch.cat(self.ids).int().numpy(),
            lengths=np.array([len(ids) for ids in self.ids]),
            plain=np.array(json.dumps(plain)),
        )

    @classmethod
    def read(cls, folder: Path) -> 'Probe | None':
        """Return the probe in `folder`; None if it has none.

        Raises:
            ModelError: The file is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                plain = json.loads(str(file['plain']))
                ids, columns, stored = (torch.from_numpy(file[name]) for name in ('ids', 'columns', 'log_probs'))
                lengths = file['lengths'].tolist()
            about = ProbeInfo(**plain['about'])
            return cls(list(ids.split(lengths)), columns, stored, plain['likeliest'], plain['scale'], about)
        except Exception as error:  # zip, JSON and missing keys raise different types
            raise ModelError(
                f'{path} is damaged ({error}); copy it again, or pass --no-verify to skip the comparison'
            ) from error

    def compare(self, logits: Sequence[torch.Tensor]) -> dict[str, float]:
        """Return the difference of a model with the logits [S, V] of each sample from the probed model.

        `mean_kl` is the Kullback-Leibler divergence in nats per position, where all tokens except the most likely ones
        count as a single one. `relative_error` is the root mean square difference of log probabilities, divided by
        `scale`.
        """
        slices = self._slices_of_samples()
        new_TK = torch.cat([self._log_probs_of_columns(sample, at) for sample, at in zip(logits, slices, strict=True)])
        old, new = (log_probs[:, : self.likeliest].double() for log_probs in (self.log_probs_TK, new_TK))
        rest_old, rest_new = ((1 - p.exp().sum(-1)).clamp_min(1e-9) for p in (old, new))
        kl_T = (old.exp() * (old - new)).sum(-1) + rest_old * (rest_old.log() - rest_new.log())
        error = (new_TK - self.log_probs_TK).double().square().mean().sqrt() / self.scale
        finite = bool(kl_T.isfinite().all() and error.isfinite())
        return dict(
            mean_kl=max(kl_T.mean().item(), 0.0) if finite else float('inf'),
            relative_error=error.item() if finite else float('inf'),
        )

    def _slices_of_samples(self) -> list[slice]:
        """Return the positions, of T, of each sample."""
        ends = np.cumsum([0, *(min(len(ids), POSITIONS) for ids in self.ids)]).tolist()
        return [slice(start, end) for start, end in zip(ends, ends[1:], strict=False)]

    def _log_probs_of_columns(self, logits_SV: torch.Tensor, positions: slice) -> torch.Tensor:
        columns_SK = self.columns_TK[positions].long()
        if columns_SK.max() >= logits_SV.shape[-1]:
            raise ModelError(
                f'the trained model has logits for token {columns_SK.max()}, but this one only for '
                f'{logits_SV.shape[-1]} tokens: its vocabulary is different'
            )
        return _log_probs(logits_SV).cpu().gather(-1, columns_SK)


def _log_probs(logits_SV: torch.Tensor) -> torch.Tensor:
    """Return the log probabilities at the last POSITIONS."""
    return logits_SV[-POSITIONS:].float().log_softmax(-1).clamp_min(_MIN_LOG_PROB)


def probe_ids(samples: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Return token ids [S] of up to SAMPLES evenly spaced `samples`, each cut to TOKENS."""
    usable = [ids for ids in samples if len(ids) > 1]
    step = max(len(usable) // SAMPLES, 1)
    return [torch.from_numpy(ids[:TOKENS].astype(np.int32)) for ids in usable[::step][:SAMPLES]]


@torch.no_grad()
def logits_of(llm: torch.nn.Module, ids: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return the logits [S, V] of `llm` for each of the sequences `ids` [S], in its compute type."""
    if ids:  # a short sequence resets dynamic RoPE, which grows with the longest sequence so far
        llm(input_ids=ids[0][:2].long()[None].to(device), use_cache=False)
    return [llm(input_ids=ids_S.long()[None].to(device), use_cache=False).logits[0] for ids_S in ids]
