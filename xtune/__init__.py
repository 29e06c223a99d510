"""xtune: fine-tune large language models from one Python config file."""

from .models.legacy.register import register_when_needed
from .version import __version__
from .yapf_cache import import_yapf

__all__ = ['__version__']

import_yapf()
register_when_needed()
