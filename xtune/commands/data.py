"""`xtune log-dataset` and `xtune check-custom-dataset`."""

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
}
