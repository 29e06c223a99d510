"""The config of the model that a run is planned for, and where its values come from.

A local folder or the hub is taken if it can be read. Otherwise the values that are shipped with xtune are, which every
model of the presets has: planning needs no connection.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig

from ..config.compose import model_part
from ..config.presets import BASE
from ..config.wire import Job
from ..errors import ModelError
from ..models.loading.hf_config import load_hf_config, with_llm_values
from ..models.loading.model_class import LOCATION_ARGUMENTS
from ..utils.quiet import quiet
from .published_configs import shipped_config

SHIPPED = 'shipped with xtune'


@dataclass(frozen=True)
class Architecture:
    """The config of a model; `source` says where its values come from, in words."""

    config: PreTrainedConfig
    source: str


def architecture(job: Job) -> Architecture:
    """Return the architecture of the base model of `job`.

    Raises:
        ConfigError: A key of the section `llm` has no effect.
        ModelError: It cannot be read, and no values are shipped for it.
    """
    name, given = job.values.base_model, job.load_llm.keywords
    if Path(name).expanduser().is_dir():
        return Architecture(load_hf_config(name, job.load_llm), f'from {name}')
    try:
        return Architecture(load_hf_config(name, job.load_llm), 'from the hub')
    except ModelError:
        part = model_part(name, BASE)
        # Another revision or folder of the repository may hold another model.
        if part is None or any(key in given for key in LOCATION_ARGUMENTS):
            raise
        with quiet():
            config = shipped_config(part.stem, name)
        if config is None:
            raise
        return Architecture(with_llm_values(config, given), SHIPPED)
