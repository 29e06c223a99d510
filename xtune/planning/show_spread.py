"""What every strategy needs, as a table to read, and which of them to take."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..parallel.compatibility import method_of_run
from .planner import GIB
from .report import Plan
from .spread import Cluster, best_of


def gib(count: float) -> str:
    """Return a number of bytes in GiB, to read."""
    value = count / GIB
    return f'{value:,.2f} GiB' if value < 10 else f'{value:,.1f} GiB'


def show_spread(plan: Plan, console: Console, config: str, strategy: str) -> None:
    """Print the table of strategies for the plan of `config`, and below it what fits which GPUs.

    `strategy` is the option of the command line that named the strategy, or empty.
    """
    table = Table(box=None, pad_edge=False)
    hosts = f'{plan.cluster.gpus} GPUs on {plan.cluster.hosts} host{"s" * (plan.cluster.hosts > 1)}'
    for title, side in ((hosts, 'left'), ('each GPU', 'right'), ('each host', 'right')):
        table.add_column(title, justify=side)
    for gb in plan.sizes:
        table.add_column(f'{gb:g} GB', justify='right')
    table.add_column('')
    for need in plan.needs:
        own = 'as given' if need.strategy == _strategy_of(plan) else ''
        if need.refused:
            table.add_row(need.strategy, '-', '-', *['-'] * len(plan.sizes), 'refused')
            continue
        words = ['[bold]fits[/]' if need.fits(gb) else 'no' for gb in plan.sizes]
        alone = 'on one of the GPUs' if need.strategy == 'one_device' else ''
        table.add_row(need.strategy, gib(need.device), gib(need.host), *words, own or alone)
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for need in plan.needs:
        if need.refused:
            reasons.setdefault(need.refused, []).append(need.strategy)
    for reason, names in reasons.items():
        console.print(escape(f'{", ".join(names)}: refused, as {reason}'), style='dim', highlight=False)
    console.print()
    for gb in plan.sizes:
        console.print(_verdict(plan, gb, config, strategy), highlight=False)


def _strategy_of(plan: Plan) -> str:
    """Return the strategy of the config on several GPUs: one that names none takes ddp."""
    return 'ddp' if plan.job.strategy.name == 'one_device' else plan.job.strategy.name


def _verdict(plan: Plan, gb: float, config: str, strategy: str) -> str:
    """Return which strategy to take on GPUs of `gb` GB. That of the config is not advised, but said to fit."""
    gpus, best = f'{plan.cluster.gpus} x {gb:g} GB', best_of(plan.needs, gb)
    name = _strategy_of(plan)
    own = next(need for need in plan.needs if need.strategy == name)
    if best is None:
        smaller = '' if method_of_run(plan.job).startswith('qlora') else ', or a qlora preset'
        return f'{gpus}: no strategy fits; take more or larger GPUs{smaller}'
    if best is own:
        command = ' '.join(filter(None, ['xtune train', config, strategy]))
        return escape(f'{gpus}: {name} is the fastest that fits, as given: {_start(plan.cluster)} {command}')
    rest = f'{name}, as given, {"fits too" if own.fits(gb) else "does not fit"}'
    return escape(
        f'{gpus}: {best.strategy} is the fastest that fits ({rest}): {_start(plan.cluster)} xtune train {config} '
        f'--strategy {best.strategy}'
    )


def _start(cluster: Cluster) -> str:
    """Return the variables that say how many processes there are."""
    several = f' NNODES={cluster.hosts} NODE_RANK=... ADDR=...' if cluster.hosts > 1 else ''
    return f'NPROC_PER_NODE={cluster.on_a_host}{several}'
