"""Untrained tokens that occur in the data cause a warning before training."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from xtune.methods.untrained_embeddings import untrained_rows


@pytest.fixture(params=['model.safetensors', 'shards'])
def grown(request, tiny_model, tmp_path):
    """A model with two added tokens: a folder, and their ids."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(['<note>', '</note>'])
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / 'grown', max_shard_size='1MB' if request.param == 'shards' else '5GB')
    tokenizer.save_pretrained(tmp_path / 'grown')
    return tmp_path / 'grown', tokenizer.convert_tokens_to_ids(['<note>', '</note>'])


def test_added_rows_are_untrained(grown, tiny_model, tokenizer):
    folder, ids = grown
    old = sorted(set(tokenizer.added_tokens_decoder) - {tokenizer.pad_token_id})
    assert untrained_rows(folder, [*old, *ids]) == ids and untrained_rows(tiny_model, old) == []
    assert untrained_rows(folder, []) == [] == untrained_rows(folder.parent, ids)


@pytest.mark.parametrize('grown', ['model.safetensors'], indirect=True)
def test_data_with_untrained_tokens_cause_a_warning(grown, make_config, xtune, tmp_path):
    folder, ids = grown
    rows = [{'instruction': f'Say {i}.', 'output': f'<note>{i}</note>'} for i in range(40)]
    (tmp_path / 'rows.json').write_text(json.dumps(rows))
    options = {'base_model': str(folder), 'train_dataset.path': str(tmp_path / 'rows.json')}
    _, out, _ = xtune('check-custom-dataset', make_config(**options))
    assert 'never learned `<note>`, `</note>`' in out and f'lora.trainable_token_indices={ids}' in out
    assert out.splitlines()[-1].endswith('(see above)')
    _, out, _ = xtune('check-custom-dataset', make_config(**options, **{'lora.trainable_token_indices': ids}))
    assert 'never learned' not in out and out.splitlines()[-1].endswith('ready to train')
