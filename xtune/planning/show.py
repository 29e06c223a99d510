"""Print a memory plan as tables."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config.strategy_traits import traits_of
from ..parallel import compatibility
from .memory_plan import MemoryPlan
from .optimizer_state import is_paged
from .show_strategies import show_strategies
from .units import CONTEXT, USABLE
from .units import format_gib as gib

_PHASES = {
    'forward': 'the end of the forward pass and the loss',
    'loss': 'the backward pass of the loss',
    'backward': 'the backward pass of the layers',
    'embedding': 'the backward pass of the embedding',
    'clip': 'gradient clipping',
    'step': 'the optimizer step',
}


def show(plan: MemoryPlan, console: Console, config: str = 'CONFIG', strategy: str = '') -> None:
    """Print a memory plan.

    Args:
        plan: The plan.
        console: Where to print.
        config: The config as the user named it.
        strategy: The command-line option that set the strategy, or empty.
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    for rows in (_run_rows, _memory_rows, _machine_rows):
        for name, text in rows(plan):
            table.add_row(name, text)
    console.print(table)
    console.print()
    if plan.cluster is not None:
        show_strategies(plan, console, config, strategy)
    else:
        console.print(_gpus(plan))
    console.print(
        f'A run can use {USABLE:.0%} of the GiB of a GPU, of which CUDA takes {gib(CONTEXT)}'
        + (', with NCCL 1 GiB.' if plan.cluster is not None else '.'),
        style='dim',
    )


def _run_rows(plan: MemoryPlan) -> list[tuple[str, str]]:
    best, step, schedule = plan.best, plan.step, plan.step.schedule
    trained = f'{plan.sizes.trained / 1e6:,.1f} M of {plan.sizes.parameters / 1e6:,.0f} M parameters are trained'
    batch = f'{schedule.batch_size} x {step.model.max_length:,} tokens'
    checkpointed = f'activation checkpointing in {best.checkpointed} of {plan.sizes.layers} layers'
    return [
        ('run', escape(f'{step.model.base_model}: {trained}')),
        ('', f'micro-batches of {batch}, {schedule.gradient_accumulation_steps} per optimizer step'),
        ('', f'{checkpointed} (activation_checkpointing={step.model.activation_checkpointing})'),
        ('architecture', escape(plan.source)),
    ]


def _memory_rows(plan: MemoryPlan) -> list[tuple[str, str]]:
    best, step = plan.best, plan.step
    rows = [('frozen', f'{gib(best.frozen)} of weights')]
    if plan.unquantized_experts:
        dtype, size = 'fp32' if step.model.precision == 'fp32' else 'bf16', gib(plan.unquantized_experts)
        rows.append(('', f'{size} of them are experts, which stay in {dtype}: only linear layers are quantized'))
    paged = ', which moves to host memory if the GPU is full' if is_paged(step.optimizer) else ''
    state = f'{gib(best.optimizer)} of optimizer state{paged}'
    rows.append(('trained', f'{gib(best.resident - best.frozen)}: weights, float32 master weights, and {state}'))
    rows.append(('gradients', gib(best.gradients)))
    rows.append(('activations', f'{gib(best.activations)} between forward and backward pass'))
    method = f'measured with partial models on {plan.gpu}' if plan.measured else 'counted with partial models'
    exact = plan.measured or not step.speed.compile or best.checkpointed == plan.sizes.layers
    compiled = '' if exact else ', as not compiled: an upper bound'
    where = f'on one device, in {_PHASES[best.phase]}'
    rows.append(('[bold]peak', f'[bold]{gib(best.peak)}[/] {where}; {method}{compiled}'))
    auto = ''
    if step.model.activation_checkpointing == 'auto':
        auto = "; activation_checkpointing='auto' uses the rest of a GPU to checkpoint fewer layers"
    rows.append(('[bold]needed', f'at least [bold]{gib(plan.needed)}[/] on one device, {gib(CONTEXT)} for CUDA{auto}'))
    return rows


def _machine_rows(plan: MemoryPlan) -> list[tuple[str, str]]:
    best, step, disk = plan.best, plan.step, plan.disk()
    reason = 'without a GPU' if plan.measured is None else 'under sequence parallelism'
    speed = f'unknown {reason}' if best.speed is None else f'{best.speed:,.0f} tokens/s with full sequences'
    rows = [('speed', speed if best.seconds is None else f'{speed}; {best.seconds:,.2f} s per optimizer step')]
    rows.append(('host', f'about {gib(plan.host())} of memory while loading'))
    adapter = f', {gib(disk["adapter"])} its adapter' if disk['adapter'] else ''
    sizes = f'{gib(disk["checkpoint"])} per checkpoint{adapter}'
    keep = f'at most {gib(disk["total"] or 0)} with keep={plan.checkpoint.keep}'
    rows.append(('disk', f'{sizes}; {"all are kept" if disk["total"] is None else keep}'))
    devices = step.strategy.sequence_parallel_size
    if devices > 1:
        shards = f'sharded over {devices} devices; the figures are those of one, without communication buffers'
        rows.append(('sequences', shards))
    if plan.is_sharded and plan.cluster is None:
        sharded = f'{step.strategy.name} shards the model over its devices; the figures are those of one device'
        rows.append(('strategy', f'{sharded}. --gpus N plans N devices'))
    if plan.fits_here is not None:
        verdict = 'fits' if plan.fits_here else '[bold]does not fit[/]'
        rows.append(('this GPU', f'{verdict}: {plan.gpu}, {gib(plan.gpu_bytes)}'))
    if plan.unsupported is not None:
        rows.append(('', f'[bold]xtune train refuses it here[/]: it needs {escape(plan.unsupported)}'))
    if plan.warning is not None:
        rows.append(('[bold]warning', escape(plan.warning)))
    return rows


def _gpus(plan: MemoryPlan) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ('GPU', 'fits', 'peak', 'checkpointed', 'with'):
        table.add_column(title, justify='right' if title in ('GPU', 'peak', 'checkpointed') else 'left')
    # The strategy of the run is not suggested.
    supported = (compatibility.method_of_model(plan.step.model), 'fsdp2') not in compatibility.REFUSED
    sharded = '--strategy fsdp2' if supported else 'a qlora preset with --strategy fsdp2'
    several = f'take several devices ({sharded})'
    if traits_of(plan.step.strategy.name).is_fsdp2:
        several = 'see several devices with --gpus N'
    for fit in plan.gpu_fits:
        if fit.peak is None:
            table.add_row(f'{fit.gb:g} GB', 'no', '', '', f'no suggested change fits: {several}')
        else:
            verdict, layers = 'yes' if fit.fits else 'no, but', f'{fit.checkpointed} layers'
            table.add_row(f'{fit.gb:g} GB', verdict, gib(fit.peak), layers, ' '.join(fit.options))
    return table
