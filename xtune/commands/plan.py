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
    from ..planning.strategies import Cluster

# GB; a larger number is meant as bytes or MB.
_MAX_GB = 10_000


def _add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_strategy(parser)
    parser.add_argument(
        '--memory',
        nargs='+',
        type=_gb,
        metavar='GB',
        help='GPU sizes to plan for (default: 8 16 24 40 80 141)',
    )
    parser.add_argument(
        '--gpus', type=_count, metavar='N', help='plan every strategy on N GPUs in total (with --memory: GB of each)'
    )
    parser.add_argument(
        '--hosts',
        type=_count,
        metavar='M',
        help='number of hosts with equal shares of --gpus (default: 8 GPUs each)',
    )
    parser.add_argument('--json', action='store_true', help='print all figures as JSON, in bytes and seconds')


def _gb(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < _MAX_GB:
        raise argparse.ArgumentTypeError(
            f'the memory of a GPU is a number of GB above 0 and below {_MAX_GB:,}, got {text}'
        )
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be an integer of at least 1, got {text}')
    return int(text)


def _cluster(gpus: int | None, hosts: int | None) -> 'Cluster | None':
    """Return the cluster of the command line; None: it has no --gpus, or one GPU.

    Raises:
        ConfigError: --hosts is given without --gpus, or the GPUs cannot be divided evenly among the hosts.
    """
    from ..errors import ConfigError
    from ..planning.strategies import Cluster

    if gpus is None:
        if hosts is not None:
            raise ConfigError(f'--hosts {hosts} needs --gpus N, the total number of GPUs on all hosts')
        return None
    hosts = hosts or -(-gpus // 8)
    if gpus % hosts:
        near = hosts * -(-gpus // hosts)
        raise ConfigError(f'{gpus} GPUs cannot be divided evenly among {hosts} hosts; give --gpus {near}, or --hosts')
    return Cluster(gpus, hosts) if gpus > 1 else None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Return a callback that shows a line on a terminal, since large batches take minutes; else it does nothing."""
    if not sys.stderr.isatty():
        yield lambda line: None
        return
    from rich.console import Console

    with Console(stderr=True).status('building the model') as status:
        yield status.update


def _run(args: argparse.Namespace) -> int:
    from ..config.presets import find
    from ..config.run_config import RunConfig

    job = RunConfig.read(find(args.config), options_of(args)).wire()
    from rich.console import Console

    from ..planning.make_plan import CLUSTER_GPU_SIZES, GPU_SIZES, make_plan
    from ..planning.show import show
    from ..utils.device import best_device

    cluster = _cluster(args.gpus, args.hosts)
    device = best_device()
    # Keep the output of libraries out of the JSON.
    with redirect_stdout(sys.stderr) if args.json else nullcontext(), _progress() as log:
        gpu_sizes = tuple(args.memory or (CLUSTER_GPU_SIZES if cluster else GPU_SIZES))
        plan = make_plan(job.step, job.checkpoint, gpu_sizes, device if device.type == 'cuda' else None, log, cluster)
    if args.json:
        json.dump(plan.to_dict(), sys.stdout, indent=2)
        print()
    else:
        show(plan, Console(), args.config, f'--strategy {args.strategy}' if args.strategy else '')
    return 2 if plan.fits_here is False else 0


COMMANDS = {
    'plan': (
        'estimate the memory and speed of a run and the GPUs that it fits, without reading weights',
        'xtune plan qwen2_5_7b_chat_qlora_alpaca_e3 --memory 8 24',
        _add,
        _run,
    )
}
