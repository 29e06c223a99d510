"""The shipped values of each preset's model give a model of the documented size."""

import copy
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.initialization import no_init_weights

from xtune.config.compose import docstring, pieces
from xtune.config.presets import BASE
from xtune.planning.published_configs import entries, shipped_config

MODELS = pieces(BASE, 'models')


def layer_family(name: str) -> str:
    """Return the type of a model's layers."""
    entry = entries()[name]
    return entry.get('type') or entry['original']


def parameters(config: PreTrainedConfig) -> int:
    """Return the number of parameters, from two shallow models on the meta device: all further layers are equal."""
    depth_key = 'n_layer' if 'n_layer' in config.to_dict() else 'num_hidden_layers'
    depth = getattr(config, depth_key)
    counts = []
    for layers in (2, 3):
        shallow = copy.deepcopy(config)
        setattr(shallow, depth_key, layers)
        if getattr(shallow, 'layer_types', None):
            shallow.layer_types = shallow.layer_types[:layers]
        with torch.device('meta'), no_init_weights():
            llm = AutoModelForCausalLM.from_config(shallow)
            llm.tie_weights()
        counts.append(sum(p.numel() for p in llm.parameters()))
    return counts[0] + (depth - 2) * (counts[1] - counts[0])


@pytest.mark.parametrize('family', sorted({layer_family(name) for name in MODELS}))
def test_the_shipped_values_give_the_documented_number_of_parameters(family):
    for name in (name for name in MODELS if layer_family(name) == family):
        text = MODELS[name].read_text(encoding='utf-8')
        config = shipped_config(name, re.search(r"base_model = '(.*)'", text)[1])
        documented = re.search(r'([\d.]+) B parameters', docstring(MODELS[name]))[1]
        rounding = 0.5 * 10 ** -len(documented.partition('.')[2])
        assert parameters(config) / 1e9 == pytest.approx(float(documented), rel=0.01, abs=rounding), name


@pytest.mark.parametrize('name', MODELS)
def test_the_shipped_values_reach_the_documented_context_length(name):
    entry = entries()[name]
    documented = int(re.search(r'up to ([\d,]+) tokens', docstring(MODELS[name]))[1].replace(',', ''))
    keys = ('max_position_embeddings', 'model_max_length', 'seq_length', 'n_positions')
    assert documented <= max(entry.get(key) or 0 for key in keys)
