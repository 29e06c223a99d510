"""What a process writes about its failure for the launcher: whole, or not at all.

The launcher ends the other processes when one fails; one of them may be writing why it lost contact at that moment.
"""

import os

from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

# Where torch's launcher wants it.
VARIABLE = 'TORCHELASTIC_ERROR_FILE'


class LastWords(ErrorHandler):
    """Writes aside and renames, where torch's own writes in place."""

    def record_exception(self, e: BaseException) -> None:
        """Write `e` with its traceback to the launcher's file, if there is a launcher.

        Raises:
            OSError: The disk is full; the launcher finds what could be written, which tells it so.
        """
        path = os.environ.get(VARIABLE)
        if path is None:
            return
        aside = f'{path}.part'
        os.environ[VARIABLE] = aside
        try:
            super().record_exception(e)
        finally:
            os.environ[VARIABLE] = path
            if os.path.exists(aside):  # not where it could not even be opened
                os.replace(aside, path)
