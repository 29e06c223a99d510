"""`xtune log-dataset`, `xtune check-custom-dataset` and `xtune list-dataset-format`."""

import argparse
from pathlib import Path

from .options import add_config, wired

MAX_ROWS = 1_000_000


def _add_log(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('--rows', type=_rows, help='number of sequences to show; 0: statistics only (default: 3)')
    parser.add_argument('--ids', action='store_true', help='show the id after each token')
    parser.add_argument('--html', type=Path, metavar='FILE', help='write the sequences to an HTML page instead')
    parser.add_argument('--val', action='store_true', help='show validation data instead of training data')


def _rows(text: str) -> int:
    rows = int(text) if text.isdecimal() and len(text) < 20 else -1
    if not 0 <= rows <= MAX_ROWS:
        raise argparse.ArgumentTypeError(f'must be an integer from 0 to {MAX_ROWS:,}, got {text!r}')
    return rows


def _log(args: argparse.Namespace) -> int:
    job = wired(args)

    from ..inspection.log import log_dataset

    log_dataset(job.name, job.model, job.data_spec, job.chat_samples, args.rows, args.ids, args.html, args.val)
    return 0


def _check(args: argparse.Namespace) -> int:
    job = wired(args)

    from ..inspection.check import check_dataset

    check_dataset(job.model, job.data_spec, job.chat_samples)
    return 0


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', default='', help='name, part of a name, or pattern with wildcards')


def _formats(args: argparse.Namespace) -> int:
    from ..inspection.dataset_formats import formats

    print('\n\n'.join('\n'.join(shown.lines()) for shown in formats(args.name)))
    return 0


COMMANDS = {
    'log-dataset': (
        'show training sequences as the model sees them, and which tokens are trained',
        'xtune log-dataset my_cfg.py --rows 2',
        _add_log,
        _log,
    ),
    'check-custom-dataset': (
        'read, map and tokenize the data of a config and report problems; no model is loaded',
        'xtune check-custom-dataset my_cfg.py --cfg-options train_dataset.path=my.jsonl',
        add_config,
        _check,
    ),
    'list-dataset-format': (
        'show an example row and its conversation for each map function',
        'xtune list-dataset-format alpaca',
        _add_formats,
        _formats,
    ),
}
