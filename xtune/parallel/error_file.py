"""Writes the error file of a rank atomically.

The launcher ends the other ranks when one fails. One of them may be writing its own error, a lost connection, at that
moment.
"""

import os

from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

# The environment variable in which torch's launcher names the file.
VARIABLE = 'TORCHELASTIC_ERROR_FILE'


class AtomicErrorHandler(ErrorHandler):
    """Writes the error file under another name and renames it; torch's handler writes it in place."""

    def record_exception(self, e: BaseException) -> None:
        """Write `e` with its traceback to the launcher's error file, if there is a launcher.

        Raises:
            OSError: The disk is full. The incomplete file tells the launcher so.
        """
        path = os.environ.get(VARIABLE)
        if path is None:
            return
        temporary = f'{path}.part'
        os.environ[VARIABLE] = temporary
        try:
            super().record_exception(e)
        finally:
            os.environ[VARIABLE] = path
            if os.path.exists(temporary):  # not where it could not even be opened
                os.replace(temporary, path)
