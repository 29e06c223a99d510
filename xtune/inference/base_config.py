"""Read the config of a base model without running remote code."""

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..utils.quiet import quiet


def stored_dtype(model: str, variant: str | None = None, revision: str | None = None) -> torch.dtype:
    """Return the type of a model's stored weights, according to its config.json.

    Raises:
        ModelError: There is no such model, or its config.json cannot be read.
    """
    folder = legacy_folder(model, revision=revision)
    if folder is not None:
        from ..models.legacy.load import legacy_dtype

        return legacy_dtype(folder, variant)
    dtype = getattr(base_config(model, revision), 'dtype', None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def base_config(model: str, revision: str | None = None) -> PreTrainedConfig:
    """Return the config of a model that transformers loads without remote code.

    Raises:
        ModelError: There is no such model, or its config.json cannot be read.
    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(model, trust_remote_code=False, **revision_argument(revision))
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(f'the model {model} cannot be loaded: {str(error).splitlines()[0]}') from error


def revision_argument(revision: str | None) -> dict[str, str]:
    """Return the keyword argument `revision` of from_pretrained; {} for None."""
    return {'revision': revision} if revision else {}
