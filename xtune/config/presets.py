"""Find presets and strategies by name, in a checkout and in an installed package alike."""

from pathlib import Path

from ..errors import ConfigError, did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
# setup.py maps the checkout's configs/ to xtune/configs/ in a wheel.
ROOT = next((p for p in (_PACKAGE / 'configs', _PACKAGE.parent / 'configs') if p.is_dir()), _PACKAGE / 'configs')
STRATEGY_PREFIX = 'deepspeed_'


def presets() -> dict[str, Path]:
    """Map each preset's name to its file, ordered by family and name."""
    files = sorted(p for p in ROOT.rglob('*.py') if '_base_' not in p.parts and p.stem != '__init__')
    return {p.stem: p for p in files}


def strategies() -> dict[str, Path]:
    """Map each DeepSpeed name (`deepspeed_zero2`) to the part that defines it."""
    return {STRATEGY_PREFIX + p.stem: p for p in sorted((ROOT / '_base_' / 'strategies').glob('zero*.py'))}


def find(name: str) -> Path:
    """Return the file of the preset `name`, or `name` itself if it is a file.

    Raises:
        ConfigError: There is neither; the message names close presets.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = presets()
    if name in known:
        return known[name]
    if path.is_dir():
        raise ConfigError(f'{name} is a folder, not a config file')
    if path.suffix == '.py' and path.stem in known:
        hint = f'; the preset is called `{path.stem}`, without .py'
    else:
        hint = did_you_mean(path.stem if path.suffix == '.py' else name, known) or '; see `xtune list-cfg`'
    if name.startswith(STRATEGY_PREFIX):
        hint = did_you_mean(name, strategies()) or hint
    raise ConfigError(f'no config file and no preset is called `{name}`{hint}')
