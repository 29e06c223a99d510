"""Errors a user can mend. The command line prints their text without a traceback.

Every message says what is wrong, the value, and what to do. An error of another class is a bug of xtune's
and is shown with its traceback.
"""

import difflib
from collections.abc import Iterable


class XtuneError(ValueError):
    """Base of all errors that are the user's to mend."""


class ConfigError(XtuneError):
    """A config file, a preset name or an option is wrong."""


class DataError(XtuneError):
    """A data file or its rows are wrong."""


class TemplateError(XtuneError):
    """A chat template does not fit the tokenizer or the conversation."""


class ModelError(XtuneError):
    """A model folder, an adapter or a quantiser is missing or does not fit."""


class CheckpointError(XtuneError):
    """A checkpoint is damaged, unsafe, or could not be written."""


class NonFiniteError(XtuneError):
    """The loss or a gradient became NaN or infinite."""


class OutOfMemory(XtuneError):
    """The run does not fit into memory."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `'; did you mean `x`?'` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=3, cutoff=0.6)
    return f'; did you mean {", ".join(f"`{c}`" for c in close)}?' if close else ''
