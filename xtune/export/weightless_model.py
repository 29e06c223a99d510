"""Build a model on the meta device that saves weights under the tensor names of its base's files.

transformers renames tensors while loading, and back while saving. Without the files it has to guess the older of
several layouts, which other programs may not find: for Gemma 3, `vision_tower.embeddings` instead of
`vision_tower.vision_model.embeddings`.
"""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import ModelError
from ..models.legacy.variants import is_legacy
from ..models.loading.folder_checks import local_folder
from ..models.loading.model_class import auto_class, model_class
from ..models.loading.verify import LOADING_ERRORS
from ..models.loading.weight_files import WeightFiles
from ..utils.quiet import quiet


def meta_model(base: str, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model of `config` on the meta device, with the tensor names of `base` if its files are local.

    Raises:
        ModelError: transformers has no causal language model of this type.
    """
    cls, folder = model_class(config), local_folder(base)
    if folder is not None and not is_legacy(folder):
        try:
            shapes = WeightFiles(folder).shapes
            state = {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}
            arguments = dict(device_map='meta', ignore_mismatched_sizes=True)
            with quiet():
                return cls.from_pretrained(None, config=config, dtype=dtype, state_dict=state, **arguments)
        except (ModelError, *LOADING_ERRORS):  # the base moved or changed; the default names of transformers also load
            pass
    with torch.device('meta'):
        return auto_class(config).from_config(config, dtype=dtype, trust_remote_code=False)
