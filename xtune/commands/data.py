"""`xtune log-dataset`, `xtune check-custom-dataset` and `xtune list-dataset-format`."""

import argparse
from pathlib import Path

from .options import add_config, wired

MAX_ROWS = 1_000_000


def _add_log(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--rows', type=_rows, help='sequences to show; 0: only figures (default: 3)')
    parser.add_argument('--ids', action='store_true', help="show each token's id behind it")
    parser.add_argument('--html', type=Path, metavar='FILE', help='write the sequences to a page for a browser instead')
    parser.add_argument('--val', action='store_true', help='show validation instead of training data')


def _rows(text: str) -> int:
    rows = int(text) if text.isdecimal() and len(text) < 20 else -1
    if not 0 <= rows <= MAX_ROWS:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to {MAX_ROWS:,}')
    return rows


def _log(args: argparse.Namespace) -> int:
    job = wired(args)

    from ..inspection.log import log_dataset

    log_dataset(job, args.rows, args.ids, args.html, args.val)
    return 0


def _check(args: argparse.Namespace) -> int:
    job = wired(args)

    from ..inspection.check import check_dataset

    check_dataset(job)
    return 0


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', default='', help='show one format, or names that contain or match this')


def _formats(args: argparse.Namespace) -> int:
    from ..inspection.dataset_formats import formats

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
