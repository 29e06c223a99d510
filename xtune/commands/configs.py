"""`xtune list-cfg` and `xtune copy-cfg`."""

import argparse
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..utils.atomic import write_text
from .options import add_cfg_options, add_strategy, options_of

STRATEGIES = 'strategies (for --strategy)'
_QUANTISED = {'load_in_4bit': '4-bit', 'load_in_8bit': 'int8'}


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', help='show what this preset (or strategy, or config file) is made of')
    parser.add_argument('-p', '--pattern', help='show only names that contain this, or match it as a glob')


def _list(args: argparse.Namespace) -> int:
    from fnmatch import fnmatch

    from ..config.presets import presets, strategies
    from ..config.strategies import strategy_parts
    from ..errors import ConfigError, did_you_mean

    if args.name is not None:
        if args.pattern is not None:
            raise ConfigError(f'list-cfg shows either `{args.name}` or what fits --pattern {args.pattern}, not both')
        return _show(args.name)
    families: dict[str, list[str]] = {}
    for name, path in presets().items():
        families.setdefault(path.parent.name, []).append(name)
    families['deepspeed (for --deepspeed)'] = list(strategies())
    families[STRATEGIES] = list(strategy_parts())
    pattern = args.pattern or ''
    shown = 0
    for family, names in families.items():
        fitting = [n for n in names if pattern.lower() in n.lower() or fnmatch(n.lower(), pattern.lower())]
        fitting = names if family == STRATEGIES and pattern.lower() in ('strategy', 'strategies') else fitting
        if fitting:
            print(f'{family}\n  ' + '\n  '.join(fitting))
            shown += len(fitting)
    if not shown:
        everything = [name for names in families.values() for name in names]
        raise ConfigError(
            f'no preset matches `{pattern}`{did_you_mean(pattern, everything) or "; `xtune list-cfg` shows all"}'
        )
    if args.pattern is None:
        _show_pieces()
    return 0


def _show_pieces() -> None:
    """Print what names can be composed of."""
    from ..config.compose import FORM, pieces
    from ..config.presets import BASE

    print(f'any other {FORM}, composed of these parts')
    for kind in ('models', 'methods', 'datasets'):
        text = f'{kind}: {", ".join(pieces(BASE, kind))}'
        print(textwrap.fill(text, 118, initial_indent='- ', subsequent_indent='- '))


def _show(name: str) -> int:
    """Print what the preset, composed preset, strategy or config file `name` does."""
    from ..config.lazy import to_plain
    from ..config.load import load
    from ..config.presets import find
    from ..config.strategies import part_of, part_text

    part = part_of(name)
    if part is not None:
        print(part_text(part), end='')
        return 0
    path = find(name)
    for label, text in _summary(path, to_plain(load(path))):
        print(f'{label:<11}{text}', flush=True)  # the last line takes seconds, the first time
    return 0


def _summary(path: Path, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (label, text) lines about the config in `path`; `values` are its sections."""
    from ..config.compose import docstring
    from ..config.presets import presets

    schedule = values['schedule']
    batch, accumulate = schedule.get('batch_size', 1), schedule.get('accumulate', 16)
    yield path.stem, ''
    yield '', docstring(path).split('\n\n')[0]
    yield 'file', str(path) if path.stem in presets() else f'{path} (not one of the presets that are files)'
    yield 'model', values['base_model']
    for source in values['train_dataset'] if isinstance(values['train_dataset'], list) else [values['train_dataset']]:
        limit = f', {source["limit"]:,} rows at most' if source.get('limit') else ''
        yield 'data', f'{source["path"]} as {source.get("map_fn", "auto")}{limit}'
    yield 'method', _method(values)
    yield 'template', values['template']
    pack = values.get('pack', True)
    yield 'length', f'{values.get("max_length", 2048):,} tokens, ' + (f'packed: {pack}' if pack else 'not packed')
    yield 'batch', f'{batch} x {accumulate} sequences a step and device, epochs: {schedule.get("max_epochs", 1)}'
    yield 'optimizer', f'{values["optimizer"]["type"]}, lr {values["optimizer"].get("lr")}'
    yield 'memory', _memory(path, path.stem if path.stem in presets() else str(path))


def _method(values: dict[str, Any]) -> str:
    lora, quantization = values.get('lora'), values.get('quantization') or {}
    if lora is None:
        return 'all weights'
    options = ', '.join(f'{k} {lora[k]}' for k in ('r', 'lora_alpha', 'lora_dropout', 'target_modules') if k in lora)
    return f'LoRA on a base that is {_words(quantization)}: {options}'


def _words(quantization: dict[str, Any]) -> str:
    """Return what such a base is."""
    if 'Float8Config' in str(quantization.get('type')):
        return 'in float8'
    return next((words for key, words in _QUANTISED.items() if quantization.get(key)), 'unquantised')


def _memory(path: Path, name: str) -> str:
    """Return what the run of a config needs of one device: the figure of `xtune plan`."""
    from ..config.lazy import comparable, to_plain
    from ..config.load import load
    from ..errors import XtuneError
    from .remembered import remembered

    values = to_plain(load(path))
    try:
        needs = remembered(comparable(values), values['base_model'], lambda: _counted(path))
    except XtuneError as error:
        return f'unknown: {error}'
    return f'{needs}; see `xtune plan {name}`'


def _counted(path: Path) -> str:
    from contextlib import redirect_stdout

    from ..config.load import load
    from ..config.wire import wire
    from ..planning.estimator import MemoryEstimator
    from ..planning.memory_plan import needed_bytes
    from ..planning.units import format_gib

    with redirect_stdout(sys.stderr):
        estimator = MemoryEstimator(wire(load(path), path.stem))
        needed = needed_bytes(estimator.minimum())
    fills = estimator.job.values.checkpointing == 'auto'
    more = "; checkpointing='auto' fills what the GPU has left" if fills else ''
    return f'at least {format_gib(needed)} on one device{more} (architecture: {estimator.source})'


def _add_copy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', help='name of a preset, or of a strategy (fsdp2, deepspeed_zero2)')
    parser.add_argument('folder', nargs='?', default='.', help='where to write NAME_copy.py (default: here)')
    parser.add_argument('--force', action='store_true', help='replace an existing file')
    add_cfg_options(parser)
    add_strategy(parser)


def _copy(args: argparse.Namespace) -> int:
    from ..config.flatten import flatten
    from ..config.presets import find
    from ..config.strategies import part_of, part_text
    from ..errors import ConfigError

    part = part_of(args.name)
    if part is not None:
        if args.cfg_options or args.strategy or args.deepspeed:
            raise ConfigError(
                f'--cfg-options, --strategy and --deepspeed change a preset; edit the copy of {args.name} instead'
            )
        text = part_text(part)
        suffix = '.json' if text.startswith('{') else '.py'
    else:
        suffix, text = '.py', flatten(find(args.name), options_of(args))
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


COMMANDS = {
    'list-cfg': (
        'list presets and strategies, or show one',
        'xtune list-cfg -p qlora',
        _add_list,
        _list,
    ),
    'copy-cfg': (
        'write a preset as one file to edit',
        'xtune copy-cfg internlm_7b_qlora_oasst1_e3 .',
        _add_copy,
        _copy,
    ),
}
