"""xtune: fine-tune large language models from one Python config file."""

from .models.legacy.register import register_when_needed
from .version import __version__

__all__ = ['__version__']

register_when_needed()
