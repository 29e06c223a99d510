"""From a model's name to a local folder in an old layout: as it is, or fetched from the hub without its code."""

from functools import lru_cache
from pathlib import Path
from ssl import SSLError

from ...errors import ModelError, did_you_mean
from ...utils.quiet import quiet
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
        ModelError: There is no such folder and no connection, or files of an old layout cannot be fetched.
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
    """Say at once what the hub's library says after a minute of trying."""
    from huggingface_hub import constants

    kept = Path(constants.HF_HUB_CACHE) / f'models--{name.replace("/", "--")}'
    if any(kept.glob('snapshots/*/config.json')):
        return
    why = 'HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else _unreachable(constants.ENDPOINT)
    if why:
        near = did_you_mean(name, [p.name for p in Path.cwd().iterdir() if p.is_dir()])
        raise ModelError(
            f'{name} is no local folder, and cannot be fetched from {constants.ENDPOINT} ({why}){near}; name a local '
            'folder, or mend the connection (HF_ENDPOINT names a mirror)'
        )


def _unreachable(url: str) -> str:
    """Return why nothing can be fetched from `url`; empty if something answers there, whatever it says."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method='HEAD'), timeout=10).close()
    except HTTPError:
        return ''
    except (URLError, OSError) as error:
        cause = getattr(error, 'reason', error)
        return '' if isinstance(cause, SSLError) else str(cause)  # certificates may be set up for the library alone
    return ''


@lru_cache(maxsize=8)
def _from_hub(name: str, weights: bool, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with quiet():
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
