"""Adapters on models with tied embeddings: which merge, and the warnings before training."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine import checks
from xtune.errors import ModelError
from xtune.methods.tied_embeddings import tied_embeddings_warning, unmergeable, untie_config
from xtune.parallel.env import World

IDS = torch.arange(3, 40)[None]


def logits(llm, ids=IDS):
    with torch.no_grad():
        return llm.eval()(input_ids=ids).logits


def adapted(tied=True, **lora):
    torch.manual_seed(0)
    sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    base = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=tied, initializer_range=0.3))
    llm = get_peft_model(base, LoraConfig(**{**dict(r=2, target_modules=['q_proj'], task_type='CAUSAL_LM'), **lora}))
    for parameter in llm.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return llm


TIED = dict(ensure_weight_tying=True)
LORA = [
    dict(target_modules=['q_proj', *names]) for names in (['lm_head'], ['embed_tokens'], ['embed_tokens', 'lm_head'])
]


@pytest.mark.parametrize(
    'lora',
    [
        *(dict(modules_to_save=names) for names in (['lm_head'], ['embed_tokens'], ['embed_tokens', 'lm_head'])),
        *(TIED | dict(modules_to_save=names) for names in (['lm_head'], ['embed_tokens'])),
        dict(trainable_token_indices=[5, 6]),
    ],
    ids=str,
)
def test_adapters_merge_into_one_or_two_matrices(lora, tmp_path):
    llm = adapted(**lora)
    want = logits(llm)
    assert unmergeable(llm) == []
    separate = 'modules_to_save' in lora and 'ensure_weight_tying' not in lora
    assert (tied_embeddings_warning(llm) is not None) == separate
    llm = llm.merge_and_unload()
    untie_config(llm)
    llm.save_pretrained(tmp_path)
    assert json.loads((tmp_path / 'config.json').read_text())['tie_word_embeddings'] == (not separate)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize('lora', [*LORA, dict(trainable_token_indices={'lm_head': [5, 6]})], ids=str)
def test_an_adapter_that_does_not_merge_causes_a_warning(lora):
    llm = adapted(**lora)
    want = logits(llm)
    assert unmergeable(llm) and 'convert merge' in tied_embeddings_warning(llm)
    assert (logits(llm.merge_and_unload()) - want).abs().max() > 0.1  # the reason for the warning
    free = adapted(tied=False, **lora)
    assert unmergeable(free) == [] and tied_embeddings_warning(free) is None


@pytest.mark.parametrize('lora', LORA, ids=str)
def test_adapters_that_cannot_stay_equal_are_refused(lora):
    with pytest.raises(ModelError, match=r"lora\.modules_to_save=\['embed_tokens'\] with lora.ensure_weight_tying"):
        tied_embeddings_warning(adapted(**lora, **TIED))


def test_a_run_warns_before_data_are_prepared(make_config, capsys):
    def printed(**options):
        checks.base(wire(load(make_config('lora', **options))), World(), torch.device('cpu'))
        return capsys.readouterr().out

    assert printed() == ''
    assert printed(**{'lora.target_modules': ['q_proj', 'v_proj']}) == ''
    assert ' lm_head ' in printed(**{'lora.target_modules': ['q_proj', 'lm_head']})
    assert ' model.embed_tokens ' in printed(**{'lora.target_modules': '.*(q_proj|embed_tokens)'})
    assert 'lora.modules_to_save trains lm_head' in printed(**{'lora.modules_to_save': ['lm_head']})
    tied = {'lora.modules_to_save': ['embed_tokens'], 'lora.ensure_weight_tying': True}
    assert printed(**tied) == ''


def test_an_lm_head_that_is_trained_alone_is_in_the_merged_model(make_config, xtune, tiny_model, tmp_path):
    options = {'lora.modules_to_save': ['lm_head'], 'lora.r': 2, 'schedule.max_steps': 1, 'optimizer.lr': 1e-2}
    config = make_config('lora', **options)
    code, out, err = xtune('train', config)
    assert code == 0 and 'lora.ensure_weight_tying' in out, err
    (adapter,) = config.with_suffix('').glob('*_hf')
    code, _, err = xtune('convert', 'merge', tiny_model, adapter, tmp_path / 'merged')
    assert code == 0, err
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / 'merged')
    assert not merged.config.tie_word_embeddings
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert not torch.equal(merged.lm_head.weight, base.lm_head.weight)
