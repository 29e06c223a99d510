"""A model without weights that writes weights under the names that its base's files have.

transformers renames tensors while loading, and back while saving. Without the files it can only guess the older one of
several layouts, which other programs may then not find: of Gemma 3, `vision_tower.embeddings` for
`vision_tower.vision_model.embeddings`.
"""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import ModelError
from ..models.legacy.recognise import is_legacy
from ..models.loading.folder_checks import local_folder
from ..models.loading.model_class import auto_class, model_class
from ..models.loading.verify import FAILURES
from ..models.loading.weight_files import WeightFiles
from ..utils.quiet import quiet


def empty_model(base: str, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model of `config` on the meta device; its names are those of `base`, if the files of that are here.

    Raises:
        ModelError: transformers has no model of this type that continues text.
    """
    kind, folder = model_class(config), local_folder(base)
    if folder is not None and not is_legacy(folder):
        try:
            shapes = WeightFiles(folder).shapes
            names = {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}
            how = dict(device_map='meta', ignore_mismatched_sizes=True)
            with quiet():
                return kind.from_pretrained(None, config=config, dtype=dtype, state_dict=names, **how)
        except (ModelError, *FAILURES):  # moved or changed since; the names that transformers prefers load as well
            pass
    with torch.device('meta'):
        return auto_class(config).from_config(config, dtype=dtype, trust_remote_code=False)
