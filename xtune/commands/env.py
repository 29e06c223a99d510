"""`xtune env`."""

import argparse


def _run(_: argparse.Namespace) -> int:
    from ..inspection.environment import report

    lines, missing = report()
    print('\n'.join(lines))
    return 2 if missing else 0


COMMANDS = {'env': ('show versions, devices and missing packages', 'xtune env', lambda parser: None, _run)}
