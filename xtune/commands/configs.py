"""`xtune list-cfg` and `xtune copy-cfg`."""

import argparse
import json
from pathlib import Path

from ..atomic import write_text
from .options import add_cfg_options


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-p', '--pattern', help='show only names that contain this, or match it as a glob')


def _list(args: argparse.Namespace) -> int:
    from fnmatch import fnmatch

    from ..config.presets import presets, strategies
    from ..errors import ConfigError, did_you_mean

    families: dict[str, list[str]] = {}
    for name, path in presets().items():
        families.setdefault(path.parent.name, []).append(name)
    families['deepspeed (for --deepspeed)'] = list(strategies())
    pattern = args.pattern or ''
    shown = 0
    for family, names in families.items():
        fitting = [n for n in names if pattern.lower() in n.lower() or fnmatch(n.lower(), pattern.lower())]
        if fitting:
            print(f'{family}\n  ' + '\n  '.join(fitting))
            shown += len(fitting)
    if not shown:
        everything = [name for names in families.values() for name in names]
        raise ConfigError(
            f'no preset matches `{pattern}`{did_you_mean(pattern, everything) or "; `xtune list-cfg` shows all"}'
        )
    return 0


def _add_copy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', help='name of a preset, or of a deepspeed_* strategy')
    parser.add_argument('folder', nargs='?', default='.', help='where to write NAME_copy.py (default: here)')
    parser.add_argument('--force', action='store_true', help='replace an existing file')
    add_cfg_options(parser)


def _copy(args: argparse.Namespace) -> int:
    from ..config.flatten import flatten
    from ..config.load import parse_options
    from ..config.presets import find, strategies
    from ..errors import ConfigError

    if args.name in strategies():
        if args.cfg_options:
            raise ConfigError(f'--cfg-options change a preset; edit the JSON of {args.name} instead')
        suffix, text = '.json', _strategy_json(strategies()[args.name])
    else:
        suffix, text = '.py', flatten(find(args.name), parse_options(args.cfg_options))
    target = Path(args.folder) / f'{Path(args.name).stem}_copy{suffix}'
    if target.exists() and not args.force:
        raise ConfigError(f'{target} exists; name another folder, or replace it with --force')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
    except OSError as error:
        raise ConfigError(f'{target} cannot be written: {error.strerror}') from error
    print(f'wrote {target}')
    return 0


def _strategy_json(path: Path) -> str:
    """Return the DeepSpeed part of a strategy as JSON."""
    from mmengine.config import Config

    config = Config.fromfile(str(path), lazy_import=True).strategy.deepspeed
    return json.dumps(config.to_dict(), indent=2) + '\n'


COMMANDS = {
    'list-cfg': ('list presets and DeepSpeed strategies', 'xtune list-cfg -p qlora', _add_list, _list),
    'copy-cfg': (
        'write a preset as one file to edit',
        'xtune copy-cfg internlm_7b_qlora_oasst1_e3 .',
        _add_copy,
        _copy,
    ),
}
