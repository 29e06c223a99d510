"""A plan as a table to read."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..parallel import compatibility
from .planner import CONTEXT, GIB, room
from .report import Plan

_WHERE = {
    'forward': 'the end of the forward pass and the loss',
    'loss': 'the backward pass of the loss',
    'backward': 'the backward pass of the layers',
    'ends': 'the backward pass of the embedding',
    'clip': 'the clipping of gradients',
    'step': "the optimizer's update",
}


def show(plan: Plan, console: Console) -> None:
    """Print a plan for a person."""
    best, job, schedule = plan.best, plan.job, plan.job.schedule
    table = Table(box=None, show_header=False, pad_edge=False)
    trained = f'{plan.size.trained / 1e6:,.1f} M of {plan.size.parameters / 1e6:,.0f} M parameters are trained'
    table.add_row('run', escape(f'{job.values.base_model}: {trained}'))
    tokens = f'{schedule.batch_size} x {job.values.max_length:,} tokens in a forward pass, {schedule.accumulate} a step'
    recomputed = f'activations recomputed in {best.recomputed} of {plan.size.layers} layers'
    table.add_row('', f'{tokens}, {recomputed} (checkpointing={job.values.checkpointing})')
    table.add_row('frozen', f'{_gib(best.frozen)} of weights')
    if plan.experts:
        kept = 'fp32' if job.values.precision == 'fp32' else 'bf16'
        table.add_row(
            '', f'{_gib(plan.experts)} of them are experts, which stay in {kept}: only linear layers are quantised'
        )
    table.add_row('trained', f'{_gib(best.held - best.frozen)}: weights, float32 masters, state of the optimizer')
    table.add_row('gradients', _gib(best.gradients))
    table.add_row('activations', f'{_gib(best.kept)} between forward and backward pass')
    how = f'measured on slices on {plan.gpu}' if plan.here else 'counted on slices, operation by operation'
    table.add_row('[bold]peak', f'[bold]{_gib(best.peak)}[/] on one device, at {_WHERE[best.where]}; {how}')
    why = 'without a GPU' if plan.here is None else 'where rows are split'
    speed = f'unknown {why}' if best.speed is None else f'{best.speed:,.0f} tokens/s, rows full'
    table.add_row('speed', speed if best.seconds is None else f'{speed}; {best.seconds:,.2f} s a step')
    table.add_row('host', f'about {_gib(plan.host())} of memory while loading')
    disk = plan.disk()
    each = f'{_gib(disk["checkpoint"])} a checkpoint' + f', {_gib(disk["adapter"])} its adapter' * bool(disk['adapter'])
    total = (
        'all are kept' if disk['total'] is None else f'{_gib(disk["total"])} at most with keep={job.checkpoint.keep}'
    )
    table.add_row('disk', f'{each}; {total}')
    split = job.strategy.sequence_parallel_size
    if split > 1:
        table.add_row('rows', f'split over {split} devices; the figures are those of one, without what they exchange')
    if plan.sliced:
        name = job.strategy.name
        table.add_row(
            'strategy', f'{name} slices this over its devices; the figures are those of one that has it whole'
        )
    if plan.fits_here is not None:
        verdict = 'fits' if plan.fits_here else '[bold]does not fit[/]'
        table.add_row('this GPU', f'{verdict}: {plan.gpu}, {_gib(plan.gpu_bytes)}')
    if plan.lacks is not None:
        table.add_row('', f'[bold]xtune train refuses it here[/]: it needs {escape(plan.lacks)}')
    if plan.warning is not None:
        table.add_row('[bold]warning', escape(plan.warning))
    console.print(table)
    console.print()
    console.print(_cards(plan))
    console.print(
        f'A card of N GB gives a run {room(1) / GIB:.0%} of N GiB, of which CUDA takes {_gib(CONTEXT)}.', style='dim'
    )


def _cards(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ('card', 'fits', 'peak', 'recomputed', 'with'):
        table.add_column(title, justify='right' if title in ('card', 'peak', 'recomputed') else 'left')
    goes = (compatibility.method_of_run(plan.job), 'fsdp2') not in compatibility.REFUSED
    wide = '--strategy fsdp2' if goes else 'a qlora preset with --strategy fsdp2'
    for card in plan.cards:
        if card.peak is None:
            table.add_row(f'{card.gb:g} GB', 'no', '', '', f'nothing tried fits: take several devices ({wide})')
        else:
            word = 'yes' if card.fits else 'no, but'
            table.add_row(f'{card.gb:g} GB', word, _gib(card.peak), f'{card.recomputed} layers', ' '.join(card.options))
    return table


def _gib(count: float) -> str:
    gib = count / GIB
    return f'{gib:,.2f} GiB' if gib < 10 else f'{gib:,.1f} GiB'
