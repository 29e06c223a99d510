"""Class and config of a loaded model, from which other ranks build the same model on the meta device."""

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
    """Class and config of a loaded base model, before an adapter is attached. It is picklable, for other ranks.

    Attributes:
        model_class: Class of the model.
        config: A copy of its config.
        generation_config: A copy of its generation config.
        quantization_config: The quantization config of its weights; None if they are not quantized.
        pre_quantized: Whether the checkpoint stores quantized weights.
    """

    model_class: type[PreTrainedModel]
    config: PreTrainedConfig
    generation_config: GenerationConfig | None
    quantization_config: Any
    pre_quantized: bool

    @classmethod
    def of(cls, model: PreTrainedModel) -> 'MetaInit':
        """Return class and config of `model`; later changes of `model` do not affect them."""
        quantizer = getattr(model, 'hf_quantizer', None)
        quantization = quantizer and quantizer.quantization_config
        config, generation = copy.deepcopy((model.config, getattr(model, 'generation_config', None)))
        return cls(type(model), config, generation, quantization, bool(quantizer and quantizer.pre_quantized))

    def build(self) -> PreTrainedModel:
        """Return the model on the meta device: modules, names and shapes without values."""
        with META:
            model = from_config(self.model_class, self.config, dtype=self.config.dtype)
            if self.quantization_config is not None:
                quantizer = AutoHfQuantizer.from_config(self.quantization_config, pre_quantized=self.pre_quantized)
                quantizer.preprocess_model(model, device_map={'': 'cpu'})
                quantizer.postprocess_model(model)
        model.generation_config = self.generation_config
        return model.eval()
