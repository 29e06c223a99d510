"""`xtune train`."""

import argparse
from typing import Any

from ..utils.interruption import NOTHING_TO_SAVE, interrupted_as, sigterm_as_interrupt
from .options import add_config, add_strategy, options_of


def _add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--work-dir', help='folder to write to (default: work_dirs/CONFIG)')
    add_strategy(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        default=False,
        metavar='PTH',
        help='resume from PTH, or from the latest complete checkpoint in the work_dir',
    )
    parser.add_argument('--seed', type=int, help='seed of data order, adapter initialization and dropout')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='launcher of the ranks'
    )


def _run(args: argparse.Namespace) -> int:
    with interrupted_as(lambda: NOTHING_TO_SAVE):
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    from ..config.presets import find
    from ..config.run_config import RunConfig
    from ..parallel import launch
    from ..parallel.env import from_environment, mute_other_ranks

    options: dict[str, Any] = options_of(args)
    if args.work_dir is not None:
        options['work_dir'] = args.work_dir
    if args.seed is not None:
        options['seed'] = args.seed
    # A misspelled section is reported here, before torch is imported.
    config = RunConfig.read(find(args.config), options)

    start = launch.wanted()
    if start is not None:
        return launch.run(start, args.arguments)
    world = from_environment(args.launcher)
    mute_other_ranks(world)
    from ..engine.train import train
    from ..planning.fit_check import check_fit

    if world.size == 1:
        with sigterm_as_interrupt():
            return train(config, args.resume, check_fit=check_fit)
    from torch.distributed.elastic.multiprocessing.errors import record

    from ..parallel.error_file import AtomicErrorHandler

    return record(train, AtomicErrorHandler())(config, args.resume, world, check_fit)


COMMANDS = {
    'train': (
        'train from a config file or a preset',
        'xtune train smollm2_135m_lora_selfcog_e2 --work-dir runs/selfcog --cfg-options schedule.max_epochs=2',
        _add,
        _run,
    )
}
