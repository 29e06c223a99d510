"""What `xtune plan` says: as JSON, and as a table to read."""

from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..config.wire import Job
from ..models.float8_checks import device_problem, float8_of
from .planner import CONTEXT, GIB, Planner, Size, room
from .predict import Prediction

CARDS = (8, 16, 24, 40, 80, 141)
# Bytes of the host's memory that Python, torch and CUDA take before a weight is read.
LIBRARIES = 4 * GIB
# A checkpoint has what is trained in float32; so has the adapter exported beside it.
FLOAT = 4


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
    """What a run needs. `here` was measured on this machine's GPU, if it has one."""

    job: Job
    size: Size
    counted: Prediction
    here: Prediction | None
    gpu: str | None
    gpu_bytes: int | None
    cards: tuple[Card, ...]

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
            copied += self.size.layers * self.size.width * self.job.schedule.batch_size * self.job.values.max_length * 2
        return LIBRARIES + FLOAT * self.size.largest + copied

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values; memory in bytes, times in seconds."""
        schedule, values, best = self.job.schedule, self.job.values, self.best
        return dict(
            base_model=values.base_model,
            parameters=self.size.parameters,
            trained_parameters=self.size.trained,
            strategy=self.job.strategy.name,
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
                trained=best.held - best.frozen,
                gradients=best.gradients,
                activations=best.kept,
                peak=best.peak,
                at=best.where,
                counted_peak=self.counted.peak,
            ),
            host=self.host(),
            disk=self.disk(),
            tokens_per_second=best.speed,
            seconds_per_step=best.seconds,
            cards=[vars(card) | dict(options=card.options and list(card.options)) for card in self.cards],
        )


def make_plan(job: Job, cards: tuple[float, ...], device: torch.device | None) -> Plan:
    """Return the plan of `job` for cards of so many GB, and for the GPU `device` if there is one.

    Raises:
        ModelError: The model cannot be built from its config.json, or not be counted.
    """
    planner = Planner(job)
    gpu = gpu_bytes = here = None
    limit = 0.0
    if device is not None:
        properties = torch.cuda.get_device_properties(device)
        gpu, gpu_bytes = properties.name, properties.total_memory
        limit = room(gpu_bytes / GIB)
        if float8_of(job) is None or device_problem(device) is None:
            here = planner.measured(job, device, limit)
    counted = planner.counted(job, limit)
    found = []
    for gb in cards:
        fit = planner.first_fit(room(gb))
        options = None if fit is None else fit[0].options
        found.append(Card(gb, options == (), options, fit and fit[1].peak, fit and fit[1].recomputed))
    return Plan(job, planner.size(), counted, here, gpu, gpu_bytes, tuple(found))


def show(plan: Plan, console: Console) -> None:
    """Print a plan for a person."""
    best, job, schedule = plan.best, plan.job, plan.job.schedule
    table = Table(box=None, show_header=False, pad_edge=False)
    trained = f'{plan.size.trained / 1e6:,.1f} M of {plan.size.parameters / 1e6:,.0f} M parameters are trained'
    table.add_row('run', f'{job.values.base_model}: {trained}')
    tokens = f'{schedule.batch_size} x {job.values.max_length:,} tokens in a forward pass, {schedule.accumulate} a step'
    recomputed = f'activations recomputed in {best.recomputed} of {plan.size.layers} layers'
    table.add_row('', f'{tokens}, {recomputed} (checkpointing={job.values.checkpointing})')
    table.add_row('frozen', f'{_gib(best.frozen)} of weights')
    table.add_row('trained', f'{_gib(best.held - best.frozen)}: weights, float32 masters, state of the optimizer')
    table.add_row('gradients', _gib(best.gradients))
    table.add_row('activations', f'{_gib(best.kept)} between forward and backward pass')
    how = f'measured on slices on {plan.gpu}' if plan.here else 'counted on slices, operation by operation'
    table.add_row('[bold]peak', f'[bold]{_gib(best.peak)}[/] on one device, at {_WHERE[best.where]}; {how}')
    speed = 'unknown without a GPU' if best.speed is None else f'{best.speed:,.0f} tokens/s, rows full'
    table.add_row('speed', speed if best.seconds is None else f'{speed}; {best.seconds:,.2f} s a step')
    table.add_row('host', f'about {_gib(plan.host())} of memory while loading')
    disk = plan.disk()
    each = f'{_gib(disk["checkpoint"])} a checkpoint' + f', {_gib(disk["adapter"])} its adapter' * bool(disk['adapter'])
    total = (
        'all are kept' if disk['total'] is None else f'{_gib(disk["total"])} at most with keep={job.checkpoint.keep}'
    )
    table.add_row('disk', f'{each}; {total}')
    if plan.sliced:
        name = job.strategy.name
        table.add_row(
            'strategy', f'{name} slices this over its devices; the figures are those of one that has it whole'
        )
    if plan.fits_here is not None:
        verdict = 'fits' if plan.fits_here else '[bold]does not fit[/]'
        table.add_row('this GPU', f'{verdict}: {plan.gpu}, {_gib(plan.gpu_bytes)}')
    console.print(table)
    console.print()
    console.print(_cards(plan))
    console.print(
        f'A card of N GB gives a run {room(1) / GIB:.0%} of N GiB, of which CUDA takes {_gib(CONTEXT)}.', style='dim'
    )


_WHERE = {
    'forward': 'the end of the forward pass and the loss',
    'backward': 'the backward pass',
    'ends': 'the backward pass of the embedding',
    'clip': 'the clipping of gradients',
    'step': "the optimizer's update",
}


def _cards(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ('card', 'fits', 'peak', 'recomputed', 'with'):
        table.add_column(title, justify='right' if title in ('card', 'peak', 'recomputed') else 'left')
    for card in plan.cards:
        if card.peak is None:
            table.add_row(
                f'{card.gb:g} GB', 'no', '', '', 'nothing tried fits: take several devices (--strategy fsdp2)'
            )
        else:
            word = 'yes' if card.fits else 'no, but'
            table.add_row(f'{card.gb:g} GB', word, _gib(card.peak), f'{card.recomputed} layers', ' '.join(card.options))
    return table


def _gib(count: float) -> str:
    gib = count / GIB
    return f'{gib:,.2f} GiB' if gib < 10 else f'{gib:,.1f} GiB'
