"""User-facing errors, printed by the command line without a traceback.

Every message states what is wrong, the value, and what to do. Errors of other classes are bugs of xtune and are printed
with their traceback.
"""

import difflib
from collections.abc import Iterable


class XtuneError(ValueError):
    """Base class of all errors that the user can fix."""


class ConfigError(XtuneError):
    """A config file, a preset name or an option is wrong."""


class DataError(XtuneError):
    """A data file or its rows are wrong."""


class TemplateError(XtuneError):
    """A chat template is incompatible with the tokenizer or the conversation."""


class ModelError(XtuneError):
    """A model folder, an adapter or a quantization library is missing or incompatible."""


class CheckpointError(XtuneError):
    """A checkpoint is damaged or unsafe, or could not be written."""


class NonFiniteError(XtuneError):
    """The loss or a gradient became NaN or infinite."""


class OutOfMemory(XtuneError):
    """The run does not fit in memory."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `'; did you mean `x`?'` with up to three known names similar to `name`, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=3, cutoff=0.6)
    return f'; did you mean {", ".join(f"`{c}`" for c in close)}?' if close else ''
