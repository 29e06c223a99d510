"""Resolve the name of a 2023 remote-code checkpoint to a local folder, downloading it without its code if needed."""

from functools import lru_cache
from pathlib import Path
from ssl import SSLError

from ...errors import ModelError, did_you_mean
from ...utils.quiet import quiet
from ..loading.json_files import read_config
from .variants import VARIANTS, is_legacy

_SMALL_FILES = ('config.json', 'generation_config.json', 'tokenizer*', 'special_tokens_map.json', 'qwen.tiktoken')
_WEIGHTS = ('*.safetensors', '*.bin', '*.index.json')
_CODE = ('*.py',)


def legacy_folder(name: str, weights: bool = True, revision: str | None = None) -> Path | None:
    """Return the local folder of `name` if it is a 2023 remote-code checkpoint, else None.

    Args:
        name: Local folder or hub name.
        weights: Whether to download weights, too.
        revision: Branch, tag or commit on the hub.

    Raises:
        ModelError: There is no such folder and no connection, or files of such a checkpoint cannot be downloaded.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path if is_legacy(path) else None
    if path.exists():
        return None
    _refuse_unreachable(name)
    return _from_hub(name, weights, revision) if name.count('/') == 1 else None


@lru_cache(maxsize=8)
def _refuse_unreachable(name: str) -> None:
    """Fail at once where huggingface_hub would retry for a minute."""
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f'models--{name.replace("/", "--")}'
    if any(cached.glob('snapshots/*/config.json')):
        return
    problem = 'HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else connection_error(constants.ENDPOINT)
    if problem:
        close = did_you_mean(name, [p.name for p in Path.cwd().iterdir() if p.is_dir()])
        raise ModelError(
            f'{name} is not a local folder, and cannot be downloaded from {constants.ENDPOINT} ({problem}){close}; '
            'name a local folder, or fix the connection (HF_ENDPOINT names a mirror)'
        )


def connection_error(url: str) -> str:
    """Return why `url` cannot be reached; '' if a server responds, with whatever status."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method='HEAD'), timeout=10).close()
    except HTTPError:
        return ''
    except (URLError, OSError) as error:
        cause = getattr(error, 'reason', error)
        return '' if isinstance(cause, SSLError) else str(cause)  # certificates may be configured only for the library
    return ''


@lru_cache(maxsize=8)
def _from_hub(name: str, weights: bool, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with quiet():
            config = Path(hf_hub_download(name, 'config.json', revision=revision))
    except (OSError, ValueError, HfHubHTTPError):
        return None  # no such model, or no connection: transformers reports it
    if read_config(config.parent).get('model_type') not in VARIANTS:
        return None
    patterns = (*_SMALL_FILES, *_WEIGHTS) if weights else _SMALL_FILES
    try:
        with quiet():
            return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_CODE))
    except (OSError, ValueError, HfHubHTTPError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f'the files of {name} cannot be downloaded: {first}. Without a connection, name a local folder with them.'
        ) from error
