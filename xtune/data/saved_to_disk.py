"""Folders written by `save_to_disk` of the package `datasets`: `state.json` lists the .arrow files of one split.

    rows/dataset_dict.json                  {"splits": ["train", "test"]}
    rows/train/state.json                   {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], ...}
    rows/train/data-00000-of-00001.arrow

The .arrow files are read directly: `datasets` would also decode images and audio.
"""

import json
from pathlib import Path
from typing import Any

from ..errors import DataError


def saved_files(folder: Path, split: str) -> list[Path] | None:
    """Return the .arrow files of `split`, in order; None if `save_to_disk` did not write the folder.

    Raises:
        DataError: The folder has no such split, is damaged, or was saved with an indices mapping, as versions up to
            2021 did.
    """
    splits = saved_splits(folder)
    if splits is not None:
        if split not in splits:
            raise DataError(f'{folder} has no split `{split}`; it has {", ".join(splits)}: set train_dataset.split')
        return _files(folder / split)
    return _files(folder) if (folder / 'state.json').is_file() and any(folder.glob('*.arrow')) else None


def saved_splits(folder: Path) -> list[str] | None:
    """Return the names of the splits of a saved `DatasetDict`; None if the folder is none."""
    path = folder / 'dataset_dict.json'
    return list(_read(path, 'splits')) if path.is_file() else None


def _files(folder: Path) -> list[Path]:
    state = folder / 'state.json'
    files = [folder / entry['filename'] for entry in _read(state, '_data_files')]
    if json.loads(state.read_text('utf-8')).get('_indices_data_files'):
        raise DataError(f'{folder} was saved with an old version of `datasets`; load it and save it again')
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataError(f'{folder} lacks {", ".join(missing)}, which its state.json lists; copy the complete folder')
    return files


def _read(path: Path, key: str) -> Any:
    try:
        return json.loads(path.read_text('utf-8'))[key]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f'{path} is missing or damaged ({error}); save the data set again') from error
