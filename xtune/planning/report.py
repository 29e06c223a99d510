"""A plan: what a run needs, here and on cards of other sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..config.wire import Job
from ..engine.packing_check import early_refusal
from ..methods.float8_checks import device_problem, float8_config
from ..models.loading.config_checks import length_warning
from ..parallel import compatibility
from .planner import CONTEXT, GIB, Planner, Size, room
from .predict import Prediction
from .spread import LIBRARIES, Cluster, Need, needs
from .variants import shared

CARDS = (8, 16, 24, 40, 80, 141)
CLUSTER_CARDS = (24, 40, 80, 141)
# A checkpoint has what is trained in float32; so has the adapter exported beside it.
FLOAT = 4
HALF = 2


@dataclass(frozen=True)
class Card:
    """Whether a run fits a card of `gb` GB, or which options make it fit, then the peak in bytes and how many layers
    recompute; None: none do."""

    gb: float
    fits: bool
    options: tuple[str, ...] | None
    peak: int | None
    recomputed: int | None


@dataclass(frozen=True)
class Plan:
    """What a run needs. `source` says where the sizes of the model come from. `least` is what it takes with every layer
    recomputed, if `checkpointing` is 'auto'. `here` was measured on this machine's GPU, if it has one; `lacks` is what
    that lacks for it; `warning` is of a run that goes on nevertheless. `needs` are those of each strategy on `cluster`,
    whose GPUs may have `sizes` GB."""

    job: Job
    source: str
    size: Size
    least: Prediction
    counted: Prediction
    here: Prediction | None
    gpu: str | None
    gpu_bytes: int | None
    cards: tuple[Card, ...]
    lacks: str | None = None
    warning: str | None = None
    cluster: Cluster | None = None
    sizes: tuple[float, ...] = ()
    needs: tuple[Need, ...] = ()

    @property
    def needed(self) -> int:
        """Bytes that one device needs at least, with what CUDA takes."""
        return needed(self.least)

    @property
    def sliced(self) -> bool:
        """Whether the strategy slices what one device holds here."""
        return self.job.strategy.name not in ('one_device', 'ddp')

    @property
    def fits_here(self) -> bool | None:
        """Whether the run fits this machine's GPU; None: it has none, or the run's strategy slices it over several."""
        if self.gpu_bytes is None or self.sliced:
            return None
        return self.best.peak + CONTEXT <= room(self.gpu_bytes / GIB)

    @property
    def best(self) -> Prediction:
        """What was measured, or else counted."""
        return self.here or self.counted

    @property
    def experts(self) -> int:
        """Bytes of experts that stay as they are in a base that is quantised, or put into float8; else 0."""
        if self.job.quantization is None:
            return 0
        return self.size.experts * (FLOAT if self.job.values.precision == 'fp32' else HALF)

    def disk(self) -> dict[str, int | None]:
        """Return the bytes of a checkpoint, of the adapter beside it, and of all that are kept at once."""
        state = self.best.optimizer + FLOAT * self.size.trained
        exported = self.job.lora is not None and self.job.checkpoint.export_adapter
        adapter, keep = FLOAT * self.size.trained * exported, self.job.checkpoint.keep
        # The oldest goes when the newest is there.
        return dict(checkpoint=state, adapter=adapter, total=None if keep is None else (keep + 1) * (state + adapter))

    def host(self) -> int:
        """Return roughly the bytes of host memory: libraries, weights on their way to the GPU, and what waits there."""
        copied = self.disk()['checkpoint'] if self.job.checkpoint.background else 0
        if self.job.values.checkpointing == 'offload':
            length = shared(self.job).values.max_length
            copied += self.size.layers * self.size.width * self.job.schedule.batch_size * length * 2
        return LIBRARIES + FLOAT * self.size.largest + copied

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values; memory in bytes, times in seconds."""
        schedule, values, best = self.job.schedule, self.job.values, self.best
        return dict(
            base_model=values.base_model,
            architecture=self.source,
            parameters=self.size.parameters,
            trained_parameters=self.size.trained,
            strategy=self.job.strategy.name,
            sequence_parallel_size=self.job.strategy.sequence_parallel_size,
            batch_size=schedule.batch_size,
            accumulate=schedule.accumulate,
            max_length=values.max_length,
            checkpointing=values.checkpointing,
            recomputed_layers=best.recomputed,
            layers=self.size.layers,
            measured=self.here is not None,
            gpu=self.gpu,
            fits_here=self.fits_here,
            memory=dict(
                frozen=best.frozen,
                experts_not_quantised=self.experts,
                trained=best.held - best.frozen,
                gradients=best.gradients,
                activations=best.kept,
                peak=best.peak,
                at=best.where,
                counted_peak=self.counted.peak,
                optimizer=best.optimizer,
                needed=self.needed,
            ),
            host=self.host(),
            disk=self.disk(),
            warning=self.warning,
            tokens_per_second=best.speed,
            seconds_per_step=best.seconds,
            strategies=[vars(need) | dict(fits=[gb for gb in self.sizes if need.fits(gb)]) for need in self.needs],
            cards=[vars(card) | dict(options=card.options and list(card.options)) for card in self.cards],
        )


def needed(least: Prediction) -> int:
    """Return the bytes that one device needs for a run: the figure of `xtune plan` and `xtune list-cfg`."""
    return least.peak + CONTEXT


def make_plan(
    job: Job,
    cards: tuple[float, ...],
    device: torch.device | None,
    told: Callable[[str], None] = lambda line: None,
    cluster: Cluster | None = None,
) -> Plan:
    """Return the plan of `job` for cards of so many GB, and for the GPU `device` if there is one.

    With a `cluster`, the cards are those of its GPUs, and every strategy is planned on it in place of changes that make
    the run fit one card. `told` gets a line about each part of it that may take long.

    Raises:
        ConfigError: The method does not go with the strategy.
        ModelError: The model cannot be built from its config.json, or not be counted.
    """
    # A strategy that several devices need is planned on one too.
    compatibility.check(compatibility.method_of_run(job), job.strategy.name, devices=2)
    planner = Planner(job, told)
    gpu = gpu_bytes = here = lacks = None
    limit = 0.0
    if device is not None:
        properties = torch.cuda.get_device_properties(device)
        gpu, gpu_bytes = properties.name, properties.total_memory
        limit = room(gpu_bytes / GIB)
        lacks = device_problem(device) if float8_config(job.quantization) else None
        if lacks is None:
            here = planner.measured(job, device, limit)
    counted = planner.counted(job, limit)
    found = []
    for gb in () if cluster else cards:
        fit = planner.first_fit(room(gb))
        options = None if fit is None else fit[0].options
        found.append(Card(gb, options == (), options, fit and fit[1].peak, fit and fit[1].recomputed))
    refused = early_refusal(job, planner.config, device or torch.device('cpu'))
    warnings = [length_warning(planner.config, job.values.max_length), refused and f'xtune train refuses it: {refused}']
    warning = '; '.join(filter(None, warnings)) or None
    several = dict(cluster=cluster, sizes=cards, needs=needs(planner, cluster)) if cluster else {}
    sizes, least = planner.size(), planner.least()
    return Plan(
        job, planner.source, sizes, least, counted, here, gpu, gpu_bytes, tuple(found), lacks, warning, **several
    )
