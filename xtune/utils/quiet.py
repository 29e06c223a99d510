"""Silence progress bars and log messages of libraries where xtune logs the same itself."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence libraries while a model is loaded or saved; errors are still shown."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    others = [logging.getLogger(name) for name in ('bitsandbytes', 'accelerate', 'peft', 'huggingface_hub', 'datasets')]
    levels = [logger.level for logger in others]
    hf_logging.set_verbosity_error()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    for logger in others:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)  # peft uses deprecated names of transformers
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
        for logger, old in zip(others, levels, strict=True):
            logger.setLevel(old)
