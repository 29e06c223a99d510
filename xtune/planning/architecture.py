"""The config of the base model to plan for, and its source.

A local folder or the hub is used if it can be read. Otherwise the values shipped with xtune are used, which exist for
the models of all presets: planning needs no connection.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedConfig

from ..config.compose import model_part
from ..errors import ModelError
from ..models.loading.hf_config import load_hf_config, with_llm_values
from ..models.loading.model_class import LOCATION_ARGUMENTS
from ..utils.quiet import quiet
from .published_configs import shipped_config

SHIPPED = 'shipped with xtune'


@dataclass(frozen=True)
class Architecture:
    """The config of a model; `source` describes where its values come from."""

    config: PreTrainedConfig
    source: str


def find_architecture(base_model: str, load_llm: partial) -> Architecture:
    """Return the architecture of `base_model`, a folder or a name on the hub.

    Args:
        base_model: The model's folder or its name on the hub.
        load_llm: The loader of the section `llm`, with the values of that section as keyword arguments.

    Raises:
        ConfigError: A key of the section `llm` has no effect.
        ModelError: The config cannot be read, and no values are shipped for this model.
    """
    if Path(base_model).expanduser().is_dir():
        return Architecture(load_hf_config(base_model, load_llm), f'from {base_model}')
    try:
        return Architecture(load_hf_config(base_model, load_llm), 'from the hub')
    except ModelError:
        part = model_part(base_model)
        # Another revision or folder of the repository may hold another model.
        if part is None or any(key in load_llm.keywords for key in LOCATION_ARGUMENTS):
            raise
        with quiet():
            config = shipped_config(part.stem, base_model)
        if config is None:
            raise
        return Architecture(with_llm_values(config, load_llm.keywords), SHIPPED)
