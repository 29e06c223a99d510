"""A model without its weights: what one process needs to build the frame of a model that another one loaded."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

from ...compat.transformers_private import from_config

META = torch.device('meta')


@dataclass(frozen=True)
class MetaInit:
    """Class and settings of a loaded base model, before an adapter is put on; it travels between processes.

    `quantization` are the settings that the weights were quantised with, `stored` says that the files held them so.
    """

    kind: type[PreTrainedModel]
    config: PreTrainedConfig
    generation: GenerationConfig | None
    quantization: Any
    stored: bool

    @classmethod
    def of(cls, model: PreTrainedModel) -> 'MetaInit':
        """Return the blueprint of `model`, which may change afterwards."""
        quantizer = getattr(model, 'hf_quantizer', None)
        settings = quantizer and quantizer.quantization_config
        config, generation = copy.deepcopy((model.config, getattr(model, 'generation_config', None)))
        return cls(type(model), config, generation, settings, bool(quantizer and quantizer.pre_quantized))

    def build(self) -> PreTrainedModel:
        """Return the model on the meta device: modules, names and shapes, and no values."""
        with META:
            model = from_config(self.kind, self.config, dtype=self.config.dtype)
            if self.quantization is not None:
                quantizer = AutoHfQuantizer.from_config(self.quantization, pre_quantized=self.stored)
                quantizer.preprocess_model(model, device_map={'': 'cpu'})
                quantizer.postprocess_model(model)
        model.generation_config = self.generation
        return model.eval()
