"""Cache of memory estimates between commands: importing the libraries and counting takes many seconds."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..utils.atomic import write_text
from ..utils.cache import cache_root
from ..version import __version__

_LIBRARIES = ('torch', 'transformers', 'peft', 'bitsandbytes')


def remembered(values: Any, base_model: str, count: Callable[[], str]) -> str:
    """Return the cached result of `count` for the same config, model and libraries; otherwise call it.

    Args:
        values: The sections of the config, as values that can be compared.
        base_model: The model's folder or its name on the hub.
        count: Returns the text to cache. If it raises, nothing is cached.
    """
    with suppress(OSError):
        return _file(values, base_model).read_text(encoding='utf-8')
    text = count()
    with suppress(OSError):  # the cache may be read-only
        file = _file(values, base_model)  # again: `count` may have downloaded the model's config
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    return text


def _file(values: Any, base_model: str) -> Path:
    code = Path(__file__).parents[1]
    sources = sorted((str(path), path.stat().st_mtime_ns) for path in code.rglob('*.py'))
    libraries = [version(name) for name in _LIBRARIES]
    settings = repr((__version__, sources, libraries, values, _model(base_model)))
    return cache_root() / 'needs' / hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()


def _model(base_model: str) -> list[str]:
    """Return the model's name and its version: its config.json, or its commits in the cache of the hub."""
    from huggingface_hub import constants

    folder = Path(base_model).expanduser()
    hub = Path(constants.HF_HUB_CACHE) / f'models--{base_model.replace("/", "--")}'
    files = [folder / 'config.json'] if folder.is_dir() else sorted((hub / 'refs').glob('*'))
    return [base_model] + [path.read_text(encoding='utf-8') for path in files if path.is_file()]
