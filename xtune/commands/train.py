"""`xtune train`."""

import argparse
import json
from pathlib import Path
from typing import Any

from .options import add_config


def _add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--work-dir', help='folder to write to (default: work_dirs/CONFIG)')
    parser.add_argument(
        '--deepspeed', metavar='NAME|JSON', help='zero1, zero2, zero2_offload, zero3, zero3_offload, or a JSON file'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        default=False,
        metavar='PTH',
        help='go on from this checkpoint; without PTH from the newest whole one in the work_dir',
    )
    parser.add_argument('--seed', type=int, help='seed of data order, adapter initialisation and dropout')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='how processes were started'
    )


def _run(args: argparse.Namespace) -> int:
    from ..config.load import load, parse_options
    from ..config.presets import find
    from ..parallel import launch
    from ..parallel.world import from_environment, mute_others

    options: dict[str, Any] = parse_options(args.cfg_options)
    if args.work_dir is not None:
        options['work_dir'] = args.work_dir
    if args.seed is not None:
        options['seed'] = args.seed
    if args.deepspeed is not None:
        options['strategy'] = deepspeed_strategy(args.deepspeed)
    config = find(args.config)
    # Structure first: a misspelt section is reported before torch is imported.
    if load(config, options).get('evaluation'):
        print('note: the section `evaluation` is not run by this version')

    start = launch.wanted()
    if start is not None:
        return launch.run(start, args.arguments)
    world = from_environment(args.launcher)
    mute_others(world)
    from ..engine.train import train

    if world.size == 1:
        return train(config, options, args.resume)
    from torch.distributed.elastic.multiprocessing.errors import record

    return record(train)(config, options, args.resume, world)


def deepspeed_strategy(name: str) -> dict[str, Any]:
    """Return the section `strategy` for `zero2`, `deepspeed_zero2` or a JSON file.

    Raises:
        ConfigError: There is no such strategy or file, or the file is no JSON object.
    """
    from mmengine.config import Config

    from ..config.presets import STRATEGY_PREFIX, strategies
    from ..errors import ConfigError, did_you_mean

    known = strategies()
    full = STRATEGY_PREFIX + name.removeprefix(STRATEGY_PREFIX)
    if full in known:
        return Config.fromfile(str(known[full]), lazy_import=True).strategy.to_dict()
    path = Path(name)
    if not path.is_file():
        short = [n.removeprefix(STRATEGY_PREFIX) for n in known]
        raise ConfigError(
            f'--deepspeed takes {", ".join(short)} or a JSON file, got `{name}`{did_you_mean(name, short)}'
        )
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path} is no DeepSpeed JSON: {error}') from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path} is no DeepSpeed JSON: it holds a {type(values).__name__}')
    zero = values.get('zero_optimization')
    if not isinstance(zero, dict) or zero.get('stage') not in (1, 2, 3):
        raise ConfigError(
            f'{path} has no zero_optimization.stage of 1, 2 or 3, but zero_optimization={zero!r}; without a stage '
            "DeepSpeed spreads nothing: write 'zero_optimization': {'stage': 2}, or use NPROC_PER_NODE alone"
        )
    parts = (zero.get('offload_optimizer'), zero.get('offload_param'))
    offload = '_offload' if any(part and part.get('device', 'none') != 'none' for part in parts) else ''
    return dict(name=f'zero{zero["stage"]}{offload}', deepspeed=values)


COMMANDS = {
    'train': (
        'train from a config file or a preset',
        'xtune train smollm2_135m_lora_selfcog_e2 --work-dir runs/selfcog --cfg-options schedule.max_epochs=2',
        _add,
        _run,
    )
}
