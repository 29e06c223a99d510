"""The engine: strategies, optimizer, loop, hooks and checkpoint files of a training run."""

import logging

# mmengine imports DeepSpeed where it is installed, which then remarks on the machine; its errors still show.
logging.getLogger('DeepSpeed').addFilter(lambda record: record.levelno >= logging.ERROR)
