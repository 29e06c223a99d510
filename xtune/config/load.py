"""Read a config file, apply options, and report every error in it."""

import ast
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ..compat.mmengine_private import config_dict
from ..errors import ConfigError
from . import read_base
from .deprecated import current_name, rename_options, rename_sections
from .lazy import is_lazy, resolve, to_plain
from .type_checks import inherited_arguments, type_problems
from .validate import problems, texts


def load(path: str | Path, options: dict | None = None, check_types: bool = False) -> Config:
    """Read the config at `path` and apply `options`, such as `{'schedule.max_epochs': 1}`.

    Args:
        path: A composed preset or a config file.
        options: Dotted option names and their values.
        check_types: Also import what the sections name as `type`, and check their keys and values against its
            signature and a table of ranges. This imports torch and transformers. With any other error it is done
            too, so that the message is complete.

    Raises:
        ConfigError: The file cannot be read, or sections, keys, types or limits are wrong. The message lists every
            problem, not only the first.
    """
    _make_importable(Path(path))
    cfg = _read(Path(path))
    if options:
        _apply(cfg, rename_options(options))
    values = to_plain(cfg)
    errors = list(problems(values))
    if check_types or errors:
        errors += type_problems(values)
    _raise(errors, path, options or {})
    return cfg


def check_type_arguments(cfg: Config, path: str | Path, options: dict | None = None) -> None:
    """Check a config that `load` returned as `load(..., check_types=True)` does.

    Raises:
        ConfigError: Keys or values do not fit the signature of a `type`. The message lists every problem.
    """
    _raise(list(type_problems(to_plain(cfg))), path, options or {})


def _raise(errors: list[str], path: str | Path, options: dict) -> None:
    if not errors:
        return
    count = 'one problem' if len(errors) == 1 else f'{len(errors)} problems'
    errors = [*errors, *inherited_arguments(errors, options)]
    raise ConfigError(f'{path} has {count}:\n' + '\n'.join(f'  - {sentence}' for sentence in errors))


def _make_importable(config: Path) -> None:
    """Make modules beside the config and in the current folder importable, after all installed ones."""
    for folder in (str(config.resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)


def _read(path: Path) -> Config:
    try:
        cfg = read_base.read(path) or Config.fromfile(str(path), lazy_import=True)
        text = path.read_text(encoding='utf-8')
    except SyntaxError as error:
        line = f', line {error.lineno}' if error.lineno else ''
        raise ConfigError(f'{path}{line}: {error.msg}: {(error.text or "").strip()}') from error
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path} is not UTF-8 text: {error}') from error
    except KeyError as error:
        raise ConfigError(f'{path}: an imported part does not define {error}') from error
    except Exception as error:  # user code, which may raise anything
        what = str(error) or 'a config holds imports, literal values and assignments, no calls or logic'
        if "'dict' object has no attribute" in what:
            what += "; change the value in its dict, or write schedule['max_epochs'] = 9"
        if 'incorrect module is defined' in what:
            what += '; presets are composed by name: `xtune copy-cfg NAME` writes one as a file to import from'
        raise ConfigError(f'{path} cannot be read as a config: {type(error).__name__}: {what}') from error
    rename_sections(config_dict(cfg), str(path), text)
    return cfg


def _apply(cfg: Config, options: dict) -> None:
    """Set dotted options. A section that is None becomes a dict; the checks report keys that do not belong there."""
    for key, value in options.items():
        *path, last = key.split('.')
        node = config_dict(cfg)
        for depth, part in enumerate(path):
            if isinstance(node, list):
                node = _item(node, part, key)
            else:
                if node.get(part) is None:
                    node[part] = ConfigDict()
                node = node[part]
            if not isinstance(node, (dict, list)):
                where = '.'.join(path[: depth + 1])
                raise ConfigError(f'--cfg-options {key}: `{where}` is a single value ({node!r}) without keys')
        value = ConfigDict(value) if isinstance(value, dict) else value
        if isinstance(node, list):
            _item(node, last, key)
            node[int(last)] = value
        else:
            node[last] = value


def _item(items: list, index: str, key: str) -> Any:
    if not index.isdecimal() or int(index) >= len(items):
        raise ConfigError(f'--cfg-options {key}: `{index}` is not a position in a list of {len(items)}')
    return items[int(index)]


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """Turn `['schedule.max_epochs=1', 'pack=False']` into a dict; values are Python literals, otherwise text.

    A word that the option allows stays text: `none` of activation_checkpointing does not become None.

    Raises:
        ConfigError: An item has no `=`, or an option is given by its old and its new name.
    """
    options = {}
    for pair in pairs:
        key, sign, text = pair.partition('=')
        if not sign or not key:
            raise ConfigError(f'--cfg-options takes name=value, got `{pair}`')
        key = key.strip()
        options[key] = text if text in texts(current_name(key)) else _literal(text)
    return rename_options(options)


def _literal(text: str) -> Any:
    known = {'true': True, 'false': False, 'none': None, 'null': None}
    if text.lower() in known:
        return known[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if len(text) > 1 and text[0] + text[-1] in ('[]', '()'):  # words without quotes: [a,b]
        items = [_literal(item.strip()) for item in text[1:-1].split(',') if item.strip()]
        return items if text[0] == '[' else tuple(items)
    return text


def section_values(cfg: Config) -> dict[str, Any]:
    """Return the sections of `cfg` with every imported name resolved to its object."""
    return {name: resolve(value) for name, value in to_plain(cfg).items() if not is_lazy(value)}
