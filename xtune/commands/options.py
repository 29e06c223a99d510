"""Arguments that several commands share."""

import argparse
from typing import Any


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config and --cfg-options."""
    parser.add_argument('config', help='config file or preset')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add --cfg-options."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='NAME=VALUE',
        help='set options of the config, such as schedule.max_epochs=1 max_length=1024',
    )


def add_strategy(parser: argparse.ArgumentParser) -> None:
    """Add --strategy and --deepspeed."""
    parser.add_argument(
        '--strategy',
        metavar='NAME',
        help='parallelism strategy: ddp, zero1, zero2, zero3, fsdp2, with _offload, ... (xtune list-cfg -p strategies)',
    )
    parser.add_argument(
        '--deepspeed', metavar='NAME|JSON', help='zero1, zero2, zero2_offload, zero3, zero3_offload, or a JSON file'
    )


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of --cfg-options, --strategy and --deepspeed."""
    from ..config.load import parse_options
    from ..config.strategies import strategy_options

    options = parse_options(args.cfg_options)
    # First, so that --cfg-options can change what a strategy sets.
    return {**strategy_options(args.strategy, args.deepspeed, options), **options}


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Add --variant."""
    parser.add_argument(
        '--variant',
        metavar='NAME',
        help='variant of a 2023 remote-code checkpoint, such as baichuan2_7b, if its config.json is ambiguous',
    )


def wired(args: argparse.Namespace, **more: Any):
    """Return the job of `args.config`, with its types checked."""
    from ..config.load import parse_options
    from ..config.presets import find
    from ..config.run_config import RunConfig

    return RunConfig.read(find(args.config), {**parse_options(args.cfg_options), **more}).wire()
