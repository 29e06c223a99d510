"""Compare the names of the tensors in an export with those in the base model's own files."""

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from transformers.utils import cached_file

from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.weights import WeightFiles, listed


def compared(folder: Path, base: str, revision: str | None = None) -> str:
    """Return a sentence: the files in `folder` hold the same tensors as those of `base`, or which differ.

    Args:
        folder: A model folder.
        base: Folder or hub name of the model it was made from; nothing is downloaded.
        revision: Of the hub name.
    """
    source = base_folder(base, revision)
    if source is None:
        return f'the weight files of {base} are not on this machine, so the names of the tensors were not compared'
    own, theirs = set(WeightFiles(folder).shapes), set(WeightFiles(source).shapes)
    lost, new = sorted(theirs - own), sorted(own - theirs)
    if not lost and not new:
        return f'the export holds the same {len(own)} tensors as the files of {base}'
    parts = [f'{len(own & theirs)} tensors have the same names as in the files of {base}']
    if lost:
        parts.append(f'{len(lost)} of theirs are not in the export ({listed(lost)})')
    if new:
        parts.append(f'{len(new)} are only in the export ({listed(new)})')
    return '; '.join(parts)


def base_folder(base: str, revision: str | None = None) -> Path | None:
    """Return the local folder of a model's weight files; None: not on this machine, or in a layout of 2023."""
    path = Path(base).expanduser()
    try:
        if not path.is_dir():
            found = cached_file(base, 'config.json', revision=revision, local_files_only=True)
            path = Path(found).parent
        if legacy_folder(str(path)) is not None:
            return None
        WeightFiles(path)
    except (OSError, ModelError, HFValidationError):
        return None
    return path
