"""Probe logits: what the trained model answers on a few of its own samples, kept to compare exports with.

A checkpoint and every export of it hold the probe. Whatever is exported, merged or split computes the same positions
again, and is refused if it differs: a fault between training and the exported files then shows, also one that the files
and their reader share.

The logits of a position take as many numbers as the vocabulary has tokens, so only some columns are kept: those of the
likeliest tokens, where the probability is, and some spread over the vocabulary.

Legend: T positions of all samples, S tokens of one sample, V vocabulary, K kept columns.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ModelError

# No .safetensors: servers take every file of that kind in a model folder for weights.
FILE = 'xtune_probe.npz'
SAMPLES, TOKENS = 4, 128  # samples, and tokens of each at most
POSITIONS = 64  # the last positions of each, as prompts come first
_LOWEST = -100.0  # log probabilities below it, as of masked tokens, count as this
_LIKELIEST, _SPREAD = 64, 64  # kept columns of each kind at most


@dataclass(frozen=True)
class About:
    """How the probe's logits were computed.

    Attributes:
        step: Optimizer steps done.
        precision: The compute type, such as 'bfloat16'.
        base: How the frozen base is stored in training: 'nf4', 'int8', 'float8', or None if it is not quantised.
    """

    step: int
    precision: str
    base: str | None


@dataclass(frozen=True)
class Probe:
    """Token ids of some samples, and log probabilities of the model at their positions.

    Attributes:
        ids: Token ids [S] of each sample; positions are its last ones, POSITIONS at most.
        columns_TK: Token ids whose log probabilities are kept; the likeliest come first.
        log_probs_TK: float32.
        likeliest: How many columns are those of the likeliest tokens.
        scale: Root mean square over the positions of the standard deviation of a position's logits.
        about: How they were computed.
    """

    ids: list[torch.Tensor]
    columns_TK: torch.Tensor
    log_probs_TK: torch.Tensor
    likeliest: int
    scale: float
    about: About

    @classmethod
    def of(cls, ids: list[torch.Tensor], logits: Sequence[torch.Tensor], about: About) -> 'Probe':
        """Return the probe of a model whose logits [S, V] of the samples `ids` are `logits`."""
        columns, kept, spreads = [], [], []
        for logits_SV in logits:
            log_probs_SV = _log_probs(logits_SV)
            size = log_probs_SV.shape[-1]
            top_SK = log_probs_SV.topk(min(_LIKELIEST, size), -1).indices
            spread_K = torch.linspace(0, size - 1, min(_SPREAD, size), device=top_SK.device).long()
            columns_SK = torch.cat([top_SK, spread_K.expand(len(top_SK), -1)], -1)
            columns.append(columns_SK.int().cpu())
            kept.append(log_probs_SV.gather(-1, columns_SK).cpu())
            # Masked tokens would make every difference look small.
            spreads.append(torch.stack([row[row > _LOWEST].std() for row in log_probs_SV]).cpu())
        scale = torch.cat(spreads).square().mean().sqrt().item()
        return cls(ids, torch.cat(columns), torch.cat(kept), min(_LIKELIEST, size), scale, about)

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, which a checkpoint can hold."""
        return dict(vars(self), about=asdict(self.about))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'Probe':
        """Return the probe of which `to_dict` returned `values`."""
        return cls(**{**values, 'about': About(**values['about'])})

    def write(self, folder: Path) -> None:
        """Write the probe into `folder`, beside the weights."""
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
        """Return the probe in `folder`, None if it has none.

        Raises:
            ModelError: The file is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                plain = json.loads(str(file['plain']))
                ids, columns, kept = (torch.from_numpy(file[name]) for name in ('ids', 'columns', 'log_probs'))
                lengths = file['lengths'].tolist()
            about = About(**plain['about'])
            return cls(list(ids.split(lengths)), columns, kept, plain['likeliest'], plain['scale'], about)
        except Exception as error:  # zip, JSON and missing names each raise their own
            raise ModelError(
                f'{path} is damaged ({error}); copy it again, or pass --no-verify to skip the comparison'
            ) from error

    def compare(self, logits: Sequence[torch.Tensor]) -> dict[str, float]:
        """Return how far a model with the logits [S, V] of each sample is from this one.

        `mean_kl` is the Kullback-Leibler divergence in nats per position, with all but the likeliest tokens counted as
        one; `relative_error` the root mean square of the difference of log probabilities, as a share of `scale`.
        """
        new_TK = torch.cat([self._kept(part, at) for part, at in zip(logits, self._rows(), strict=True)])
        old, new = (log_probs[:, : self.likeliest].double() for log_probs in (self.log_probs_TK, new_TK))
        rest_old, rest_new = ((1 - p.exp().sum(-1)).clamp_min(1e-9) for p in (old, new))
        kl_T = (old.exp() * (old - new)).sum(-1) + rest_old * (rest_old.log() - rest_new.log())
        error = (new_TK - self.log_probs_TK).double().square().mean().sqrt() / self.scale
        finite = bool(kl_T.isfinite().all() and error.isfinite())
        return dict(
            mean_kl=max(kl_T.mean().item(), 0.0) if finite else float('inf'),
            relative_error=error.item() if finite else float('inf'),
        )

    def _rows(self) -> list[slice]:
        ends = np.cumsum([0, *(min(len(ids), POSITIONS) for ids in self.ids)]).tolist()
        return [slice(start, end) for start, end in zip(ends, ends[1:], strict=False)]

    def _kept(self, logits_SV: torch.Tensor, rows: slice) -> torch.Tensor:
        columns_SK = self.columns_TK[rows].long()
        if columns_SK.max() >= logits_SV.shape[-1]:
            raise ModelError(
                f'the trained model has logits for token {columns_SK.max()}, but this one only for '
                f'{logits_SV.shape[-1]} tokens: its vocabulary is another one'
            )
        return _log_probs(logits_SV).cpu().gather(-1, columns_SK)


def _log_probs(logits_SV: torch.Tensor) -> torch.Tensor:
    """Return the log probabilities at the last POSITIONS."""
    return logits_SV[-POSITIONS:].float().log_softmax(-1).clamp_min(_LOWEST)


def probe_ids(samples: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Return token ids [S] of up to SAMPLES of `samples`, spread over them, each cut to TOKENS."""
    usable = [ids for ids in samples if len(ids) > 1]
    step = max(len(usable) // SAMPLES, 1)
    return [torch.from_numpy(ids[:TOKENS].astype(np.int32)) for ids in usable[::step][:SAMPLES]]


@torch.no_grad()
def logits_of(llm: torch.nn.Module, ids: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return the logits [S, V] of `llm` for each of the sequences `ids` [S], in the type it computes in."""
    if ids:  # RoPE that grows with the longest sequence seen begins anew at a short one
        llm(input_ids=ids[0][:2].long()[None].to(device), use_cache=False)
    return [llm(input_ids=one.long()[None].to(device), use_cache=False).logits[0] for one in ids]
