"""xtune: fine-tune large language models from one Python config file."""

import logging

from .models.legacy.register import register_when_needed
from .utils.yapf_cache import import_yapf
from .version import __version__

__all__ = ['__version__']

import_yapf()
register_when_needed()
# mmengine imports DeepSpeed where it is installed, and so does transformers when it saves a model. DeepSpeed then
# remarks on the machine; its errors still show.
logging.getLogger('DeepSpeed').addFilter(lambda record: record.levelno >= logging.ERROR)
