"""Compare the names of the tensors in an export with those in the base model's own files."""

from pathlib import Path

from ..errors import ModelError
from ..models.legacy.recognise import is_legacy
from ..models.loading.folder_checks import local_folder
from ..models.loading.weight_files import WeightFiles, listed


def compared(folder: Path, base: str, revision: str | None = None) -> str:
    """Return a sentence: the files in `folder` hold the same tensors as those of `base`, or which differ.

    Args:
        folder: A model folder.
        base: Folder or hub name of the model it was made from; nothing is downloaded.
        revision: Of the hub name.
    """
    theirs = _weights(base, revision)
    if theirs is None:
        return f'the weight files of {base} are not on this machine, so the names of the tensors were not compared'
    own = set(WeightFiles(folder).shapes)
    lost, new = sorted(theirs - own), sorted(own - theirs)
    if not lost and not new:
        return f'the export holds the same {len(own)} tensors as the files of {base}'
    parts = [f'{len(own & theirs)} tensors have the same names as in the files of {base}']
    if lost:
        parts.append(f'{len(lost)} of theirs are not in the export ({listed(lost)})')
    if new:
        parts.append(f'{len(new)} are only in the export ({listed(new)})')
    return '; '.join(parts)


def _weights(base: str, revision: str | None) -> set[str] | None:
    """Return the names in a model's weight files; None: they are not on this machine, or in a layout of 2023."""
    folder = local_folder(base, revision)
    try:
        return None if folder is None or is_legacy(folder) else set(WeightFiles(folder).shapes)
    except ModelError:
        return None
