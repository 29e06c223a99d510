"""Compare the tensor names of an export with those in the base model's files."""

from pathlib import Path

from ..errors import ModelError
from ..models.legacy.variants import is_legacy
from ..models.loading.folder_checks import local_folder
from ..models.loading.weight_files import WeightFiles, listed


def compare_tensor_names(folder: Path, base: str, revision: str | None = None) -> str:
    """Return whether the files in `folder` have the same tensor names as those of `base`, as a sentence.

    Args:
        folder: A model folder.
        base: Folder or hub name of its base model; nothing is downloaded.
        revision: Branch, tag or commit of the hub name.
    """
    names_of_base = _tensor_names(base, revision)
    if names_of_base is None:
        return f'the weight files of {base} are not on this machine, so the names of the tensors were not compared'
    names = set(WeightFiles(folder).shapes)
    missing, additional = sorted(names_of_base - names), sorted(names - names_of_base)
    if not missing and not additional:
        return f'the export holds the same {len(names)} tensors as the files of {base}'
    parts = [f'{len(names & names_of_base)} tensors have the same names as in the files of {base}']
    if missing:
        parts.append(f'{len(missing)} of its tensors are not in the export ({listed(missing)})')
    if additional:
        parts.append(f'{len(additional)} are only in the export ({listed(additional)})')
    return '; '.join(parts)


def _tensor_names(base: str, revision: str | None) -> set[str] | None:
    """Return the names in a model's weight files; None if they are not local, or of a 2023 remote-code checkpoint."""
    folder = local_folder(base, revision)
    try:
        return None if folder is None or is_legacy(folder) else set(WeightFiles(folder).shapes)
    except ModelError:
        return None
