"""From a model's name to a local folder in an old layout: as it is, or fetched from the hub without its code."""

from functools import lru_cache
from pathlib import Path

from ...errors import ModelError
from ..quiet import quiet
from .recognise import VARIANTS, is_legacy, read_config

_SMALL = ('config.json', 'generation_config.json', 'tokenizer*', 'special_tokens_map.json', 'qwen.tiktoken')
_WEIGHTS = ('*.safetensors', '*.bin', '*.index.json')
_CODE = ('*.py',)


def legacy_folder(name: str, weights: bool = True, revision: str | None = None) -> Path | None:
    """Return the local folder of `name` if it is a model in an old layout, else None.

    Args:
        name: Local folder or hub name.
        weights: Whether weights are fetched, too.
        revision: Branch, tag or commit on the hub.

    Raises:
        ModelError: The repository is known to have an old layout, and its files cannot be fetched.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path if is_legacy(path) else None
    return _from_hub(name, weights, revision) if not path.exists() and name.count('/') == 1 else None


@lru_cache(maxsize=8)
def _from_hub(name: str, weights: bool, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        config = Path(hf_hub_download(name, 'config.json', revision=revision))
    except (OSError, ValueError, HfHubHTTPError):
        return None  # no such model, or no connection: transformers says so for every model alike
    if read_config(config.parent).get('model_type') not in VARIANTS:
        return None
    wanted = (*_SMALL, *_WEIGHTS) if weights else _SMALL
    try:
        with quiet():
            return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=_CODE))
    except (OSError, ValueError, HfHubHTTPError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f'the files of {name} cannot be fetched: {first}. Without a connection, name a local folder with them.'
        ) from error
