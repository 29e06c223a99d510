"""Read the JSON files of a model folder."""

import json
from pathlib import Path
from typing import Any

from ...errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; {} if there is no such file.

    Raises:
        ModelError: The file is damaged or not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f'{path} is damaged ({error}); copy it again') from error
    if not isinstance(values, dict):
        raise ModelError(f'{path} contains a {type(values).__name__}, expected a JSON object; copy it again')
    return values


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of `folder`; {} if there is none.

    Raises:
        ModelError: The file is damaged or not a JSON object.
    """
    return read_json(folder / 'config.json')
