"""Models with learned position embeddings refuse longer samples before data are prepared; others only warn."""

import pytest
import torch
from small_models import small_model
from transformers import CONFIG_MAPPING

from xtune.engine.context_limit import check_length, position_embeddings
from xtune.errors import ModelError

# Model type, changes -> maximum number of tokens.
TABLES = [
    ('gpt2', {}, 1024),
    ('gpt_neo', {}, 2048),
    ('gpt_bigcode', {}, 1024),
    ('opt', {}, 2048),
    ('biogpt', {}, 1024),
    ('openai-gpt', {}, 512),
    ('roberta', dict(max_position_embeddings=514, is_decoder=True), 512),
    ('llama', {}, None),
    ('bloom', {}, None),
    ('falcon', {}, None),
    ('mamba', {}, None),
    ('granitemoehybrid', {}, None),
]


@pytest.mark.parametrize(('model_type', 'changes', 'expected'), TABLES)
def test_position_embeddings_are_measured_with_their_offsets(model_type, changes, expected):
    assert position_embeddings(CONFIG_MAPPING[model_type](**changes)) == expected


@pytest.mark.parametrize('name', ['GPT2LMHeadModel', 'OPTForCausalLM', 'RobertaForCausalLM'])
def test_limit_equals_the_usable_positions_of_the_model(name):
    model = small_model(name)
    limit = position_embeddings(model.config)
    model(input_ids=torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 5))


def test_longer_samples_are_refused_with_the_limit():
    check_length(CONFIG_MAPPING['gpt2'](), 1024)
    check_length(CONFIG_MAPPING['llama'](), 100_000)
    with pytest.raises(ModelError, match='max_length=1025, but .* 1024 tokens.* set max_length=1024'):
        check_length(CONFIG_MAPPING['gpt2'](), 1025)


def test_run_is_refused_before_data_are_prepared(make_config, xtune, tmp_path):
    folder = tmp_path / 'gpt2'
    small_model('GPT2LMHeadModel').save_pretrained(folder)
    code, out, err = xtune('train', make_config('full', base_model=str(folder)))
    assert code != 0 and 'set max_length=64' in err and 'training' not in out
