"""Models: native loading, quantised bases, adapters, and the loss."""

import logging

# On some CPUs bitsandbytes remarks, whenever it is imported, that a kernel of the hub is not there; errors still show.
logging.getLogger('bitsandbytes.backends.cpu.ops').addFilter(lambda record: record.levelno >= logging.ERROR)
