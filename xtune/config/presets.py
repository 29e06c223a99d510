"""Find presets and strategies by name, in a checkout and in an installed package alike."""

from difflib import get_close_matches
from pathlib import Path

from ..errors import ConfigError, did_you_mean
from .compose import compose, parse

_PACKAGE = Path(__file__).resolve().parents[1]
# setup.py maps the checkout's configs/ to xtune/configs/ in a wheel.
ROOT = next((p for p in (_PACKAGE / 'configs', _PACKAGE.parent / 'configs') if p.is_dir()), _PACKAGE / 'configs')
BASE = ROOT / '_base_'
STRATEGY_PREFIX = 'deepspeed_'


def presets() -> dict[str, Path]:
    """Map each preset's name to its file, ordered by family and name."""
    files = sorted(p for p in ROOT.rglob('*.py') if '_base_' not in p.parts and p.stem != '__init__')
    return {p.stem: p for p in files}


def strategies() -> dict[str, Path]:
    """Map each DeepSpeed name (`deepspeed_zero2`) to the part that defines it."""
    return {STRATEGY_PREFIX + p.stem: p for p in sorted((BASE / 'strategies').glob('zero*.py'))}


def find(name: str) -> Path:
    """Return the file of the preset `name`, which is composed of parts if there is none, or `name` itself if a file.

    Raises:
        ConfigError: There is neither; the message names close presets, and which pieces of the name are wrong.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = presets()
    if name in known:
        return known[name]
    if path.is_dir():
        raise ConfigError(f'{name} is a folder, not a config file')
    stem = path.stem if path.suffix == '.py' else name
    try:
        recipe = parse(stem, BASE)
    except ConfigError as error:
        reasons = str(error)
    else:
        if stem == name:
            return compose(recipe, BASE)
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
        # Once the pieces are told apart, a whole name is only worth naming if a letter or two are wrong.
        near = known if reasons.startswith('its form') else get_close_matches(stem, known, cutoff=0.9)
        hint = did_you_mean(stem, near) or '; see `xtune list-cfg`'
        hint += ''.join(f'\n  - {reason}' for reason in reasons.splitlines())
    raise ConfigError(f'no config file and no preset is called `{name}`{hint}')
