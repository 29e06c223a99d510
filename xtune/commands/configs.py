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
_QUANTIZED = {'load_in_4bit': '4-bit', 'load_in_8bit': 'int8'}


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', help='preset, strategy or config file to show')
    parser.add_argument('-p', '--pattern', help='list only names that contain this or match it as a glob')


def _list(args: argparse.Namespace) -> int:
    from fnmatch import fnmatch

    from ..config.presets import presets, strategies
    from ..config.strategies import strategy_parts
    from ..errors import ConfigError, did_you_mean

    if args.name is not None:
        if args.pattern is not None:
            raise ConfigError(f'give either `{args.name}` or --pattern {args.pattern}')
        return _show(args.name)
    families: dict[str, list[str]] = {}
    for preset in presets().values():
        families.setdefault(preset.family, []).append(preset.name)
    families['deepspeed (for --deepspeed)'] = list(strategies())
    families[STRATEGIES] = list(strategy_parts())
    pattern = args.pattern or ''
    shown = 0
    for family, names in families.items():
        matching = [n for n in names if pattern.lower() in n.lower() or fnmatch(n.lower(), pattern.lower())]
        matching = names if family == STRATEGIES and pattern.lower() in ('strategy', 'strategies') else matching
        if matching:
            print(f'{family}\n  ' + '\n  '.join(matching))
            shown += len(matching)
    if not shown:
        everything = [name for names in families.values() for name in names]
        raise ConfigError(
            f'no preset matches `{pattern}`{did_you_mean(pattern, everything) or "; `xtune list-cfg` shows all"}'
        )
    if args.pattern is None:
        _show_parts()
    return 0


def _show_parts() -> None:
    """Print the parts that names are composed of."""
    from ..config.compose import part_files
    from ..config.preset_names import FORM

    print(f'any other {FORM}, of these parts')
    for kind in ('models', 'methods', 'datasets'):
        text = f'{kind}: {", ".join(part_files(kind))}'
        print(textwrap.fill(text, 118, initial_indent='- ', subsequent_indent='- '))


def _show(name: str) -> int:
    """Print the settings of a preset, strategy or config file."""
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
        print(f'{label:<11}{text}', flush=True)  # the first time, the last line takes seconds
    return 0


def _summary(path: Path, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (label, text) lines about the config in `path`; `values` are its sections."""
    from ..config.compose import docstring
    from ..config.presets import recipe_of

    preset = _is_preset(path)
    schedule = values['schedule']
    batch, accumulation = schedule.get('batch_size', 1), schedule.get('gradient_accumulation_steps', 16)
    yield path.stem, ''
    yield '', docstring(path).split('\n\n')[0]
    if preset:
        recipe = recipe_of(path.stem)
        yield 'parts', ' + '.join(f'{file.parent.name}/{file.stem}' for file in recipe.files[:3])
        yield 'options', ' '.join(f'{name}={value}' for name, value in recipe.options().items())
    else:
        yield 'file', str(path)
    yield 'model', values['base_model']
    for source in values['train_dataset'] if isinstance(values['train_dataset'], list) else [values['train_dataset']]:
        limit = f', first {source["limit"]:,} rows' if source.get('limit') else ''
        yield 'data', f'{source["path"]} as {source.get("map_fn", "auto")}{limit}'
    yield 'method', _method(values)
    yield 'template', values['chat_template']
    pack = values.get('pack', True)
    yield 'length', f'{values.get("max_length", 2048):,} tokens, ' + (f'packed: {pack}' if pack else 'not packed')
    yield (
        'batch',
        f'{batch} x {accumulation} sequences per optimizer step and device, epochs: {schedule.get("max_epochs", 1)}',
    )
    yield 'optimizer', f'{values["optimizer"]["type"]}, lr {values["optimizer"].get("lr")}'
    yield 'memory', _memory(path, path.stem if preset else str(path))


def _is_preset(path: Path) -> bool:
    """Return whether a preset was composed into `path`."""
    from ..utils.cache import cache_root

    return path.parent == cache_root() / 'presets'


def _method(values: dict[str, Any]) -> str:
    lora, quantization = values.get('lora'), values.get('quantization') or {}
    if lora is None:
        return 'full fine-tuning'
    options = ', '.join(f'{k} {lora[k]}' for k in ('r', 'lora_alpha', 'lora_dropout', 'target_modules') if k in lora)
    return f'LoRA on a base in {_base_format(quantization)}: {options}'


def _base_format(quantization: dict[str, Any]) -> str:
    """Return the storage format of the base."""
    if 'Float8Config' in str(quantization.get('type')):
        return 'float8'
    return next((name for key, name in _QUANTIZED.items() if quantization.get(key)), 'its own precision')


def _memory(path: Path, name: str) -> str:
    """Return the memory that a run needs on one device, as `xtune plan` estimates it."""
    from ..config.lazy import comparable, to_plain
    from ..config.load import load
    from ..errors import XtuneError
    from .estimate_cache import cached_estimate

    values = to_plain(load(path))
    try:
        estimate = cached_estimate(comparable(values), values['base_model'], lambda: _estimate(path))
    except XtuneError as error:
        return f'unknown: {error}'
    return f'{estimate}; see `xtune plan {name}`'


def _estimate(path: Path) -> str:
    from contextlib import redirect_stdout

    from ..config.load import load
    from ..config.wire import wire
    from ..planning.estimator import MemoryEstimator
    from ..planning.memory_plan import needed_bytes
    from ..planning.units import format_gib

    with redirect_stdout(sys.stderr):
        estimator = MemoryEstimator(wire(load(path), path.stem).step)
        needed = needed_bytes(estimator.minimum())
    fills = estimator.step.model.activation_checkpointing == 'auto'
    note = "; activation_checkpointing='auto' fills what the GPU has left" if fills else ''
    return f'at least {format_gib(needed)} on one device{note} (architecture: {estimator.source})'


def _add_copy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', help='preset, config file, or strategy (fsdp2, deepspeed_zero2)')
    parser.add_argument('folder', nargs='?', default='.', help='folder for NAME_copy.py (default: here)')
    parser.add_argument('--force', action='store_true', help='overwrite an existing file')
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
                f'--cfg-options, --strategy and --deepspeed apply to presets; edit the copy of {args.name} instead'
            )
        text = part_text(part)
        suffix = '.json' if text.startswith('{') else '.py'
    else:
        suffix, text = '.py', flatten(find(args.name), options_of(args))
    target = Path(args.folder) / f'{Path(args.name).stem}_copy{suffix}'
    if target.exists() and not args.force:
        raise ConfigError(f'{target} exists; give another folder, or overwrite it with --force')
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
        'write a preset as one file with every option, to edit',
        'xtune copy-cfg internlm_7b_qlora_oasst1_e3 .',
        _add_copy,
        _copy,
    ),
}
