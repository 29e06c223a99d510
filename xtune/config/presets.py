"""Find presets and strategies by name, in a checkout and in an installed package alike."""

from difflib import get_close_matches
from pathlib import Path

from ..errors import ConfigError, did_you_mean
from .compose import Recipe, compose, parse
from .paths import BASE, ROOT
from .preset_table import presets

__all__ = ['BASE', 'ROOT', 'STRATEGY_PREFIX', 'find', 'presets', 'recipe_of', 'strategies']

STRATEGY_PREFIX = 'deepspeed_'


def strategies() -> dict[str, Path]:
    """Map each DeepSpeed name (`deepspeed_zero2`) to the part that defines it."""
    return {STRATEGY_PREFIX + p.stem: p for p in sorted((BASE / 'strategies').glob('zero*.py'))}


def recipe_of(name: str) -> Recipe:
    """Return the parts of a preset, whether `presets` lists it or not.

    Raises:
        ConfigError: It is not the name of a preset.
    """
    return parse(presets()[name].composed if name in presets() else name)


def find(name: str) -> Path:
    """Return `name` itself if it is a file, else the file that the preset `name` is composed into.

    Raises:
        ConfigError: There is no such file and no such preset; the message names close presets, and which parts of the
            name are wrong.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = presets()
    if name in known:
        return compose(name, recipe_of(name), known[name].note)
    if path.is_dir():
        raise ConfigError(f'{name} is a folder, not a config file')
    stem = path.stem if path.suffix == '.py' else name
    try:
        recipe = parse(stem)
    except ConfigError as error:
        reasons = str(error)
    else:
        if stem == name:
            return compose(name, recipe)
        reasons = ''
    folder = path.parent if '/' in name else None
    if reasons.startswith('its form') and stem not in known and (folder or stem != name):
        there = [str(other) for other in (folder or Path()).glob('*.py')]
        hint = did_you_mean(str(path), there) or '; check its folder, or name a preset (see `xtune list-cfg`)'
        raise ConfigError(f'config file {name} does not exist{hint}')
    if stem != name and (stem in known or not reasons):
        hint = f'; the preset is called `{stem}`, without .py'
    elif name.startswith(STRATEGY_PREFIX):
        hint = did_you_mean(name, strategies()) or '; see `xtune list-cfg`'
    else:
        # Where the parts of the name are known, another preset is only worth naming if a letter or two are wrong.
        near = known if reasons.startswith('its form') else get_close_matches(stem, known, cutoff=0.9)
        hint = did_you_mean(stem, near) or '; see `xtune list-cfg`'
        hint += ''.join(f'\n  - {reason}' for reason in reasons.splitlines())
    raise ConfigError(f'no config file and no preset is called `{name}`{hint}')
