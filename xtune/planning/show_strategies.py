"""Print the memory of every strategy as a table, and the strategies that fit."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config.strategy_traits import traits_of
from ..parallel.compatibility import method_of_model
from .memory_plan import MemoryPlan
from .strategies import Cluster, fastest_fit
from .units import format_gib


def show_strategies(plan: MemoryPlan, console: Console, config: str, strategy: str) -> None:
    """Print the table of strategies of a plan, the reasons of refusals, and the fastest strategy that fits.

    Args:
        plan: The plan, with a cluster.
        console: Where to print.
        config: The config as the user named it.
        strategy: The command-line option that set the strategy, or empty.
    """
    console.print(_table(plan))
    reasons: dict[str, list[str]] = {}
    for memory in plan.strategies:
        if memory.refused:
            reasons.setdefault(memory.refused, []).append(memory.strategy)
    for reason, names in reasons.items():
        console.print(escape(f'{", ".join(names)}: refused, as {reason}'), style='dim', highlight=False)
    console.print()
    for gb in plan.cluster_gpu_sizes:
        console.print(_verdict(plan, gb, config, strategy), highlight=False)


def _table(plan: MemoryPlan) -> Table:
    table, sizes = Table(box=None, pad_edge=False), plan.cluster_gpu_sizes
    hosts = f'{plan.cluster.gpus} GPUs on {plan.cluster.hosts} host{"s" * (plan.cluster.hosts > 1)}'
    for title, side in ((hosts, 'left'), ('each GPU', 'right'), ('each host', 'right')):
        table.add_column(title, justify=side)
    for gb in sizes:
        table.add_column(f'{gb:g} GB', justify='right')
    table.add_column('')
    for memory in plan.strategies:
        if memory.refused:
            table.add_row(memory.strategy, '-', '-', *['-'] * len(sizes), 'refused')
            continue
        verdicts = ['[bold]fits[/]' if memory.fits(gb) else 'no' for gb in sizes]
        remark = 'on one of the GPUs' if traits_of(memory.strategy).single_device else ''
        remark = 'as given' if memory.strategy == _strategy_of(plan) else remark
        table.add_row(memory.strategy, format_gib(memory.device), format_gib(memory.host), *verdicts, remark)
    return table


def _strategy_of(plan: MemoryPlan) -> str:
    """Return the strategy of the config on several GPUs: ddp if it names none."""
    return 'ddp' if traits_of(plan.step.strategy.name).single_device else plan.step.strategy.name


def _verdict(plan: MemoryPlan, gb: float, config: str, strategy: str) -> str:
    """Return the fastest strategy that fits GPUs of `gb` GB, and its command."""
    gpus, best = f'{plan.cluster.gpus} x {gb:g} GB', fastest_fit(plan.strategies, gb)
    name = _strategy_of(plan)
    configured = next(memory for memory in plan.strategies if memory.strategy == name)
    if best is None:
        smaller = '' if method_of_model(plan.step.model).startswith('qlora') else ', or a qlora preset'
        return f'{gpus}: no strategy fits; take more or larger GPUs{smaller}'
    if best is configured:
        command = ' '.join(filter(None, ['xtune train', config, strategy]))
        return escape(f'{gpus}: {name} is the fastest that fits, as given: {_launch(plan.cluster)} {command}')
    remark = f'{name}, as given, {"fits too" if configured.fits(gb) else "does not fit"}'
    return escape(
        f'{gpus}: {best.strategy} is the fastest that fits ({remark}): {_launch(plan.cluster)} xtune train {config} '
        f'--strategy {best.strategy}'
    )


def _launch(cluster: Cluster) -> str:
    """Return the environment variables that set the number of ranks."""
    hosts = f' NNODES={cluster.hosts} NODE_RANK=... ADDR=...' if cluster.hosts > 1 else ''
    return f'NPROC_PER_NODE={cluster.gpus_per_host}{hosts}'
