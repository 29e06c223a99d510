"""Adapters saved by plain peft: resized vocabularies, experts of older versions, initializations from the base."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from xtune.errors import ModelError
from xtune.inference.adapter import attach_adapter, other_base
from xtune.inference.load import load_for_inference

CPU = torch.device('cpu')
IDS = torch.arange(3, 35)[None]
NEW = [37, 38, 39]
SIZES = dict(vocab_size=37, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
MOE = SIZES | dict(num_key_value_heads=4, num_experts_per_tok=1, initializer_range=0.3)


def logits(llm, ids=IDS):
    with torch.no_grad():
        return llm.eval()(input_ids=ids).logits


@pytest.fixture(scope='module')
def bases(tmp_path_factory):
    """Folders of random models with 37 tokens, with tied (True) or untied (False) embeddings."""
    folders = {}
    for tied in (True, False):
        torch.manual_seed(0)
        folders[tied] = tmp_path_factory.mktemp('bases') / 'base'
        LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied, initializer_range=0.3)).save_pretrained(
            folders[tied]
        )
    return folders


def last_ids(rows):
    return torch.arange(rows - 30, rows)[None]


def saved(base, folder, rows=40, save='auto', **lora):
    """Save an adapter with plain peft, on `base` with resized embeddings; return the logits of base and adapter."""
    llm = AutoModelForCausalLM.from_pretrained(base)
    llm.resize_token_embeddings(rows, mean_resizing=False)
    settings = {**dict(r=2, target_modules=['q_proj'], task_type='CAUSAL_LM'), **lora}
    llm = get_peft_model(llm, LoraConfig(**settings))
    for parameter in llm.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    llm.save_pretrained(folder, save_embedding_layers=save)
    return logits(llm, last_ids(rows))


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize(
    ('lora', 'rows', 'save'),
    [
        (dict(modules_to_save=['embed_tokens', 'lm_head']), 40, False),
        (dict(modules_to_save=['embed_tokens']), 40, 'auto'),
        (dict(), 40, True),
        (dict(), 33, True),
        (dict(trainable_token_indices=NEW), 40, 'auto'),
    ],
    ids=['both', 'one', 'beside', 'fewer', 'tokens'],
)
def test_the_base_is_resized_to_the_rows_of_the_adapter(tied, lora, rows, save, bases, tmp_path):
    want = saved(bases[tied], tmp_path / 'adapter', rows, save, **lora)
    llm = load_for_inference(str(bases[tied]), str(tmp_path / 'adapter'), CPU, torch.float32)
    assert llm.config.vocab_size == rows
    torch.testing.assert_close(logits(llm, last_ids(rows)), want, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(llm.merge_and_unload(), last_ids(rows)), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ('tied', 'lora', 'lost'),
    [
        (True, dict(modules_to_save=['lm_head']), 'model.embed_tokens'),
        (False, dict(modules_to_save=['embed_tokens']), 'lm_head'),
        (False, dict(trainable_token_indices=NEW), 'lm_head'),
        (True, dict(trainable_token_indices=[38]), 'model.embed_tokens and lm_head'),
    ],
)
def test_new_rows_without_weights_are_refused(tied, lora, lost, bases, tmp_path):
    saved(bases[tied], tmp_path, save=False, **lora)
    with pytest.raises(ModelError, match=f'new rows of {lost}.*save_embedding_layers'):
        load_for_inference(str(bases[tied]), str(tmp_path), CPU, torch.float32)


def test_added_tokens_reach_the_merged_model_and_the_chat(tiny_model, xtune, tmp_path):
    tokenizer, rows = AutoTokenizer.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model).vocab_size
    tokenizer.add_tokens(['<one>', '<two>'])
    saved(tiny_model, tmp_path / 'adapter', rows + 2)
    tokenizer.save_pretrained(tmp_path / 'adapter')
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'merged')
    assert code == 0, err
    assert json.loads((tmp_path / 'merged' / 'config.json').read_text())['vocab_size'] == rows + 2
    chat = ('chat', tiny_model, '--prompt', '<two>', '--max-new-tokens', 2, '--adapter')
    code, _, err = xtune(*chat, tmp_path / 'adapter')
    assert code == 0, err
    saved(tiny_model, tmp_path / 'without', rows + 2, save=False)
    tokenizer.save_pretrained(tmp_path / 'without')
    code, _, err = xtune(*chat, tmp_path / 'without')
    assert code == 2 and f'ids up to {rows + 1}' in err


def experts_of_version_4(config, folder, targets):
    """Save a model, and an adapter with modules for each expert as in transformers 4; return their logits."""
    torch.manual_seed(0)
    base, merged, adapter = (folder / name for name in ('base', 'merged', 'adapter'))
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    weights, state = load_file(base / 'model.safetensors'), {}
    for name in [name for name in weights if name.split('.')[-2] in targets]:
        (out, size), layer = weights[name].shape, f'base_model.model.{name.removesuffix(".weight")}'
        down, up = 0.3 * torch.randn(2, size), 0.3 * torch.randn(out, 2)
        state[f'{layer}.lora_A.weight'], state[f'{layer}.lora_B.weight'] = down, up
        weights[name] += 2 * up @ down
    shutil.copytree(base, merged)
    save_file(weights, merged / 'model.safetensors', metadata={'format': 'pt'})
    LoraConfig(r=2, lora_alpha=4, target_modules=targets, inference_mode=True).save_pretrained(adapter)
    save_file(state, adapter / 'adapter_model.safetensors')
    return logits(AutoModelForCausalLM.from_pretrained(merged))


@pytest.mark.parametrize(
    ('config', 'targets'),
    [
        (MixtralConfig(**MOE, num_local_experts=2), ['q_proj', 'w1', 'w2', 'w3']),
        (
            Qwen3MoeConfig(**MOE, head_dim=8, moe_intermediate_size=16, num_experts=2),
            ['q_proj', 'gate_proj', 'up_proj', 'down_proj'],
        ),
    ],
    ids=['mixtral', 'qwen3_moe'],
)
def test_adapters_of_single_experts_that_peft_converts(config, targets, tmp_path):
    want = experts_of_version_4(config, tmp_path, targets)
    llm = load_for_inference(str(tmp_path / 'base'), str(tmp_path / 'adapter'), CPU, torch.float32)
    torch.testing.assert_close(logits(llm), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ('config', 'targets'),
    [
        (MixtralConfig(**MOE, num_local_experts=2), ['q_proj', 'w1', 'w3']),
        (Qwen3MoeConfig(**MOE, head_dim=8, moe_intermediate_size=16, num_experts=2), ['q_proj', 'up_proj']),
        (
            Qwen2MoeConfig(**MOE, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=2),
            ['gate_proj', 'up_proj', 'down_proj'],
        ),
    ],
    ids=['mixtral', 'qwen3_moe', 'qwen2_moe'],
)
def test_adapters_of_single_experts_that_peft_does_not_convert(config, targets, tmp_path):
    experts_of_version_4(config, tmp_path, targets)
    with pytest.raises(ModelError, match='transformers before 5.*experts'):
        load_for_inference(str(tmp_path / 'base'), str(tmp_path / 'adapter'), CPU, torch.float32)


def test_adapters_of_expert_tensors(tmp_path):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(MixtralConfig(**MOE, num_local_experts=2))
    base.save_pretrained(tmp_path / 'base')
    config = LoraConfig(r=2, target_modules=['q_proj'], target_parameters=['mlp.experts.down_proj'])
    llm = get_peft_model(base, config)
    for parameter in llm.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    llm.save_pretrained(tmp_path / 'adapter')
    again = load_for_inference(str(tmp_path / 'base'), str(tmp_path / 'adapter'), CPU, torch.float32)
    torch.testing.assert_close(logits(again), logits(llm), rtol=0, atol=1e-5)


def test_an_adapter_of_another_size_names_its_base(bases, tmp_path):
    saved(bases[True], tmp_path / 'adapter', 37)
    other = LlamaForCausalLM(LlamaConfig(**(SIZES | dict(hidden_size=16))))
    with pytest.raises(ModelError, match=r'q_proj.lora_A.* \[2, 32\] .* \[2, 16\].*bases.*/base\)'):
        attach_adapter(other, str(tmp_path / 'adapter'))


@pytest.mark.parametrize('start', ['pissa_niter_4', 'lora_ga', 'corda'])
def test_an_adapter_whose_changed_base_cannot_be_reproduced_is_refused(start, bases, tmp_path):
    saved(bases[True], tmp_path, 37)
    values = json.loads((tmp_path / 'adapter_config.json').read_text())
    (tmp_path / 'adapter_config.json').write_text(json.dumps(values | dict(init_lora_weights=start)))
    with pytest.raises(ModelError, match=f"init_lora_weights='{start}'"):
        load_for_inference(str(bases[True]), str(tmp_path), CPU, torch.float32)


def test_another_base_than_that_of_the_training_causes_a_warning(bases, tmp_path, capsys):
    saved(bases[True], tmp_path / 'adapter', 37)
    adapter = str(tmp_path / 'adapter')
    (tmp_path / 'link').symlink_to(bases[True])
    shutil.copytree(bases[True], tmp_path / 'moved' / 'base')
    shutil.copytree(bases[True], tmp_path / 'renamed')
    for same in (bases[True], tmp_path / 'link', tmp_path / 'moved' / 'base', 'somebody/Base'):
        assert other_base(adapter, str(same)) is None
    assert other_base(adapter, str(tmp_path / 'renamed')) == str(bases[True])
    load_for_inference(str(tmp_path / 'renamed'), adapter, CPU, torch.float32)
    assert f'was trained on {bases[True]}' in capsys.readouterr().err


def test_embeddings_saved_with_an_adapter(bases, tmp_path):
    want = saved(bases[False], tmp_path, 37, True, modules_to_save=['lm_head'])
    assert isinstance(llm := load_for_inference(str(bases[False]), str(tmp_path), CPU, torch.float32), PeftModel)
    torch.testing.assert_close(logits(llm, last_ids(37)), want, rtol=0, atol=1e-5)
