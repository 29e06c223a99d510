"""A plan as a table to read."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..parallel import compatibility
from .planner import CONTEXT, GIB, room
from .report import Plan
from .show_spread import gib, show_spread

_WHERE = {
    'forward': 'the end of the forward pass and the loss',
    'loss': 'the backward pass of the loss',
    'backward': 'the backward pass of the layers',
    'ends': 'the backward pass of the embedding',
    'clip': 'the clipping of gradients',
    'step': "the optimizer's update",
}


def show(plan: Plan, console: Console, config: str = 'CONFIG', strategy: str = '') -> None:
    """Print the plan of `config` for a person.

    Args:
        plan: The plan.
        console: Where it is printed.
        config: The config as the user called it.
        strategy: The option of the command line that named the strategy, or empty.
    """
    console.print(_run(plan))
    console.print()
    if plan.cluster is not None:
        show_spread(plan, console, config, strategy)
    else:
        console.print(_cards(plan))
    console.print(
        f'A card of N GB gives a run {room(1) / GIB:.0%} of N GiB, of which CUDA takes {gib(CONTEXT)}'
        + (', with NCCL 1 GiB.' if plan.cluster is not None else '.'),
        style='dim',
    )


def _run(plan: Plan) -> Table:
    best, job, schedule = plan.best, plan.job, plan.job.schedule
    table = Table(box=None, show_header=False, pad_edge=False)
    trained = f'{plan.size.trained / 1e6:,.1f} M of {plan.size.parameters / 1e6:,.0f} M parameters are trained'
    table.add_row('run', escape(f'{job.values.base_model}: {trained}'))
    batch = f'{schedule.batch_size} x {job.values.max_length:,} tokens in a forward pass'
    tokens = f'{batch}, {schedule.gradient_accumulation_steps} a step'
    recomputed = f'activations recomputed in {best.recomputed} of {plan.size.layers} layers'
    table.add_row('', f'{tokens}, {recomputed} (activation_checkpointing={job.values.activation_checkpointing})')
    table.add_row('architecture', escape(plan.source))
    table.add_row('frozen', f'{gib(best.frozen)} of weights')
    if plan.experts:
        kept = 'fp32' if job.values.precision == 'fp32' else 'bf16'
        table.add_row(
            '', f'{gib(plan.experts)} of them are experts, which stay in {kept}: only linear layers are quantised'
        )
    paged = ', which moves to host memory if the GPU is full' if 'Paged' in job.optimizer.func.__name__ else ''
    state = f'{gib(best.optimizer)} state of the optimizer{paged}'
    table.add_row('trained', f'{gib(best.held - best.frozen)}: weights, float32 master weights, and {state}')
    table.add_row('gradients', gib(best.gradients))
    table.add_row('activations', f'{gib(best.kept)} between forward and backward pass')
    how = f'measured on slices on {plan.gpu}' if plan.here else 'counted on slices, operation by operation'
    table.add_row('[bold]peak', f'[bold]{gib(best.peak)}[/] on one device, at {_WHERE[best.where]}; {how}')
    fills = ''
    if job.values.activation_checkpointing == 'auto':
        fills = "; activation_checkpointing='auto' fills what a card has left, so that fewer layers recompute"
    table.add_row('[bold]needed', f'at least [bold]{gib(plan.needed)}[/] on one device, {gib(CONTEXT)} for CUDA{fills}')
    why = 'without a GPU' if plan.here is None else 'where rows are split'
    speed = f'unknown {why}' if best.speed is None else f'{best.speed:,.0f} tokens/s, rows full'
    table.add_row('speed', speed if best.seconds is None else f'{speed}; {best.seconds:,.2f} s a step')
    table.add_row('host', f'about {gib(plan.host())} of memory while loading')
    disk = plan.disk()
    each = f'{gib(disk["checkpoint"])} a checkpoint' + f', {gib(disk["adapter"])} its adapter' * bool(disk['adapter'])
    total = 'all are kept' if disk['total'] is None else f'{gib(disk["total"])} at most with keep={job.checkpoint.keep}'
    table.add_row('disk', f'{each}; {total}')
    split = job.strategy.sequence_parallel_size
    if split > 1:
        table.add_row('rows', f'split over {split} devices; the figures are those of one, without what they exchange')
    if plan.sliced and plan.cluster is None:
        name = job.strategy.name
        table.add_row(
            'strategy', f'{name} shards this over its devices; the figures are those of one device. --gpus N shows N'
        )
    if plan.fits_here is not None:
        verdict = 'fits' if plan.fits_here else '[bold]does not fit[/]'
        table.add_row('this GPU', f'{verdict}: {plan.gpu}, {gib(plan.gpu_bytes)}')
    if plan.lacks is not None:
        table.add_row('', f'[bold]xtune train refuses it here[/]: it needs {escape(plan.lacks)}')
    if plan.warning is not None:
        table.add_row('[bold]warning', escape(plan.warning))
    return table


def _cards(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ('card', 'fits', 'peak', 'recomputed', 'with'):
        table.add_column(title, justify='right' if title in ('card', 'peak', 'recomputed') else 'left')
    # The strategy that the run has is not advised.
    own = plan.job.strategy.name
    goes = (compatibility.method_of_run(plan.job), 'fsdp2') not in compatibility.REFUSED
    wide = '--strategy fsdp2' if goes else 'a qlora preset with --strategy fsdp2'
    several = f'take several devices ({wide})' if not own.startswith('fsdp2') else 'see several devices with --gpus N'
    for card in plan.cards:
        if card.peak is None:
            table.add_row(f'{card.gb:g} GB', 'no', '', '', f'nothing tried fits: {several}')
        else:
            word = 'yes' if card.fits else 'no, but'
            table.add_row(f'{card.gb:g} GB', word, gib(card.peak), f'{card.recomputed} layers', ' '.join(card.options))
    return table
