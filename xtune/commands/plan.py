"""`xtune plan`."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING

from .options import add_config, add_strategy, options_of

if TYPE_CHECKING:
    from ..planning.spread import Cluster

# What is more is bytes, or MB.
_MOST = 10_000


def _add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_strategy(parser)
    parser.add_argument(
        '--memory', nargs='+', type=_gb, metavar='GB', help='cards to ask about (default: 8 16 24 40 80 141)'
    )
    parser.add_argument(
        '--gpus', type=_count, metavar='N', help='plan every strategy on N GPUs (with --memory: of so many GB each)'
    )
    parser.add_argument(
        '--hosts', type=_count, metavar='M', help='hosts that the --gpus are on, evenly (default: 8 GPUs a host)'
    )
    parser.add_argument('--json', action='store_true', help='print everything as JSON, in bytes and seconds')


def _gb(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < _MOST:
        raise argparse.ArgumentTypeError(
            f'the memory of a card is a number of GB above 0 and below {_MOST:,}, got {text}'
        )
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'give a whole number of at least 1, got {text}')
    return int(text)


def _cluster(gpus: int | None, hosts: int | None) -> 'Cluster | None':
    """Return the GPUs that the command line names; None: it names none, or one.

    Raises:
        ConfigError: Hosts are named without GPUs, or the GPUs cannot be evenly on them.
    """
    from ..errors import ConfigError
    from ..planning.spread import Cluster

    if gpus is None:
        if hosts is not None:
            raise ConfigError(f'--hosts {hosts} needs --gpus N, the number of GPUs on all of them together')
        return None
    hosts = hosts or -(-gpus // 8)
    if gpus % hosts:
        near = hosts * -(-gpus // hosts)
        raise ConfigError(f'{gpus} GPUs cannot be evenly on {hosts} hosts; give --gpus {near}, or --hosts')
    return Cluster(gpus, hosts) if gpus > 1 else None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows a line on a terminal, as large batches take minutes; elsewhere it does nothing."""
    if not sys.stderr.isatty():
        yield lambda line: None
        return
    from rich.console import Console

    with Console(stderr=True).status('building the model') as status:
        yield status.update


def _run(args: argparse.Namespace) -> int:
    from ..config.load import load
    from ..config.presets import find
    from ..config.wire import wire

    config, options = find(args.config), options_of(args)
    job = wire(load(config, options, check_types=True), config.stem)
    from rich.console import Console

    from ..planning.report import CARDS, CLUSTER_CARDS, make_plan
    from ..planning.show import show
    from ..utils.device import best_device

    cluster = _cluster(args.gpus, args.hosts)
    device = best_device()
    # What a library prints is none of the plan's JSON.
    with redirect_stdout(sys.stderr) if args.json else nullcontext(), _progress() as told:
        cards = tuple(args.memory or (CLUSTER_CARDS if cluster else CARDS))
        plan = make_plan(job, cards, device if device.type == 'cuda' else None, told, cluster)
    if args.json:
        json.dump(plan.to_dict(), sys.stdout, indent=2)
        print()
    else:
        show(plan, Console(), args.config, f'--strategy {args.strategy}' if args.strategy else '')
    return 2 if plan.fits_here is False else 0


COMMANDS = {
    'plan': (
        'predict the memory and speed of a run, and on which cards it fits, without reading weights',
        'xtune plan qwen2_5_7b_chat_qlora_alpaca_e3 --memory 8 24',
        _add,
        _run,
    )
}
