"""The folder of the configs, in a checkout and in an installed package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# setup.py maps the checkout's configs/ to xtune/configs/ in a wheel.
ROOT = next((p for p in (_PACKAGE / 'configs', _PACKAGE.parent / 'configs') if p.is_dir()), _PACKAGE / 'configs')
BASE = ROOT / '_base_'
