"""Cache of memory estimates between commands, because imports and the estimate take many seconds."""

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


def cached_estimate(values: Any, base_model: str, estimate: Callable[[], str]) -> str:
    """Return the cached result of `estimate` for the same config, model and libraries; otherwise call it.

    Args:
        values: The sections of the config, as comparable values.
        base_model: Folder or hub name of the model.
        estimate: Returns the text to cache. If it raises, nothing is cached.
    """
    with suppress(OSError):
        return _cache_file(values, base_model).read_text(encoding='utf-8')
    text = estimate()
    with suppress(OSError):  # the cache may be read-only
        file = _cache_file(values, base_model)  # again, because `estimate` may have downloaded the model's config
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    return text


def _cache_file(values: Any, base_model: str) -> Path:
    code = Path(__file__).parents[1]
    sources = sorted((str(path), path.stat().st_mtime_ns) for path in code.rglob('*.py'))
    libraries = [version(name) for name in _LIBRARIES]
    settings = repr((__version__, sources, libraries, values, _model_version(base_model)))
    return cache_root() / 'needs' / hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()


def _model_version(base_model: str) -> list[str]:
    """Return the name of the model and its version: its config.json, or its commits in the hub cache."""
    from huggingface_hub import constants

    folder = Path(base_model).expanduser()
    hub = Path(constants.HF_HUB_CACHE) / f'models--{base_model.replace("/", "--")}'
    files = [folder / 'config.json'] if folder.is_dir() else sorted((hub / 'refs').glob('*'))
    return [base_model] + [path.read_text(encoding='utf-8') for path in files if path.is_file()]
