"""The command line: arguments only. Each command imports what it needs when it runs.

Exit codes: 0 done, 1 a bug (with its traceback), 2 something the user can mend, 130 interrupted.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .commands import COMMANDS
from .errors import ConfigError, XtuneError
from .parallel.launch import prints_error
from .utils.visible import visible
from .version import __version__


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='xtune',
        description='Fine-tune large language models from one Python config file.',
        epilog='example:\n  xtune list-cfg -p smollm2\n  xtune train smollm2_135m_lora_selfcog_e2',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'xtune {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, (summary, example, add_arguments, run) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_arguments(command)
        command.add_argument('--debug', action='store_true', help="show the traceback of a user's mistake too")
        command.set_defaults(run=run)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave the process with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = build_parser().parse_args(arguments)
    parsed.arguments = arguments
    sys.exit(_guarded(parsed.run, parsed))


def _guarded(run: Callable[[argparse.Namespace], int | None], parsed: argparse.Namespace) -> int:
    try:
        _require_home()
        return run(parsed) or 0
    except XtuneError as error:
        if parsed.debug:
            raise
        if prints_error(str(error)):
            print('error: ' + visible(str(error), keep='\n'), file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # `xtune list-cfg | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141 if parsed.command == 'train' else 0
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and not parsed.debug:
            print('error: the disk is full; make room, or write elsewhere (--work-dir, XTUNE_CACHE)', file=sys.stderr)
            return 2
        if parsed.debug or error.filename is None:
            raise
        print(f'error: {Path(str(error.filename))}: {error.strerror} (--debug shows where)', file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(str(error) or 'interrupted', file=sys.stderr)
        return 130


def _require_home() -> None:
    """Refuse a user without a home folder, as in containers that run under any number; libraries fail with tracebacks.

    Raises:
        ConfigError: There is none.
    """
    try:
        Path.home()
    except RuntimeError as error:
        raise ConfigError(
            'this user has no home folder: set HOME to a folder that can be written to. Libraries keep their caches '
            'there, and so does xtune unless XTUNE_CACHE names another folder'
        ) from error


if __name__ == '__main__':
    main()
