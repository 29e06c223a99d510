"""`xtune log-dataset`, `xtune check-custom-dataset` and `xtune list-dataset-format`."""

import argparse

from .options import add_config, wired


def _add_log(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--rows', type=int, default=3, help='training sequences to show (default: 3)')


def _log(args: argparse.Namespace) -> int:
    job = wired(args)

    from ..inspection import log_dataset

    log_dataset(job, args.rows)
    return 0


def _check(args: argparse.Namespace) -> int:
    job = wired(args)

    from ..inspection import check_dataset

    check_dataset(job)
    return 0


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', default='', help='show one format, or names that contain or match this')


def _formats(args: argparse.Namespace) -> int:
    from ..formats import formats

    print('\n\n'.join('\n'.join(shown.lines()) for shown in formats(args.name)))
    return 0


COMMANDS = {
    'log-dataset': (
        'show what the model will see: tokens trained and not trained',
        'xtune log-dataset my_cfg.py --rows 2',
        _add_log,
        _log,
    ),
    'check-custom-dataset': (
        'read, map and tokenise the data of a config and give a verdict; no model is loaded',
        'xtune check-custom-dataset my_cfg.py --cfg-options train_dataset.path=my.jsonl',
        add_config,
        _check,
    ),
    'list-dataset-format': (
        'show the rows that map functions take, and the conversations they become',
        'xtune list-dataset-format alpaca',
        _add_formats,
        _formats,
    ),
}
