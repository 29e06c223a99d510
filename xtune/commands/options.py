"""Arguments that several commands share."""

import argparse
from typing import Any


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config and the options that change it."""
    parser.add_argument('config', help='config file, or name of a preset')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add --cfg-options."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='NAME=VALUE',
        help='change values of the config, such as schedule.max_epochs=1 max_length=1024',
    )


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Add --variant."""
    parser.add_argument(
        '--variant',
        metavar='NAME',
        help='which layout of 2023 the model has, such as baichuan2_7b, if its config.json does not tell',
    )


def wired(args: argparse.Namespace, **more: Any):
    """Return the checked and wired job of `args.config`."""
    from ..config.load import load, parse_options
    from ..config.presets import find
    from ..config.wire import wire

    path = find(args.config)
    return wire(load(path, {**parse_options(args.cfg_options), **more}, check_types=True), path.stem)
