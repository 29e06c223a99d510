"""Every causal LM class that builds small: trained, exported, and loaded by plain transformers and peft.

The files must hold every tensor that the class has, and compute what was trained. A few classes run by default, all of
them with `-m slow`.
"""

import json

import pytest
import torch
from peft import PeftModel
from small_models import small_classes, small_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from xtune.hf_format.probe_logits import Probe, logits_of
from xtune.models.loading.config_checks import takes_sdpa

DEFAULT = ('Glm4MoeForCausalLM', 'MixtralForCausalLM', 'GPT2LMHeadModel')
# Classes that xtune does not train, with the reason.
NOT_TRAINED = {
    'Emu3ForCausalLM': 'its config is a part of one of vision and language, and has no class alone',
    'MllamaForCausalLM': 'its config is a part of one of vision and language, and has no class alone',
    'ReformerModelWithLMHead': 'it takes sequences of one length only in training',
}
# Encoders with two names for a tied tensor; transformers writes the other name.
TWO_NAMES = ('CamembertForCausalLM', 'XLMRobertaForCausalLM')
CPU = torch.device('cpu')


def cases():
    names = small_classes()
    return [pytest.param(n, marks=[] if n in DEFAULT else pytest.mark.slow) for n in names if n not in NOT_TRAINED]


@pytest.fixture(scope='module')
def byte_tokenizer():
    """A tokenizer of bytes with the markers of ChatML."""
    vocabulary = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token='<|im_end|>', pad_token='<|im_end|>')
    tokenizer.add_special_tokens({'additional_special_tokens': ['<|im_start|>']})
    return tokenizer


def run_config(place, base, method, options):
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    rows = [dict(instruction=f'{n} + 1', input='', output=str(n + 1)) for n in range(8)]
    (place / 'rows.json').write_text(json.dumps(rows))
    values = {
        'base_model': str(base),
        'chat_template': 'chatml',
        'train_dataset.path': str(place / 'rows.json'),
        'train_dataset.map_fn': 'alpaca',
        'work_dir': str(place / method),
        'max_length': 56,
        'pack': False,
        'schedule.batch_size': 2,
        'schedule.gradient_accumulation_steps': 1,
        'schedule.max_steps': 2,
        'schedule.lr_schedule': 'constant',
        'optimizer.lr': 1e-2,
        'chat_samples.every_steps': None,
        'chat_samples.prompts': [],
        'checkpoint.export_adapter': False,
        'data.num_proc': 1,
        'log.plot': False,
        'log.tensorboard': False,
        **options,
    }
    if method == 'full':
        values['train_dataset.map_args'] = None
    config = place / f'{method}.py'
    preset = {'full': 'smollm2_135m_full_selfcog_e2', 'lora': 'smollm2_135m_lora_alpaca_e1'}[method]
    config.write_text(flatten(find(preset), values))
    return config


@pytest.mark.parametrize('method', ['full', 'lora'])
@pytest.mark.parametrize('model_class', cases())
def test_exports_contain_the_trained_weights(model_class, method, byte_tokenizer, xtune, tmp_path):
    base, out = tmp_path / 'base', tmp_path / 'hf'
    llm = small_model(model_class, vocabulary=max(len(byte_tokenizer), 272))
    for name, buffer in llm.named_buffers():  # persistent ones that a new model does not have
        if name in llm.state_dict() and buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer))
    llm.save_pretrained(base)
    byte_tokenizer.save_pretrained(base)
    options = {} if takes_sdpa(llm.config) else {'llm.attn_implementation': 'eager'}
    config = run_config(tmp_path, base, method, options)
    code, _, err = xtune('train', config)
    assert code == 0, err
    checkpoint = tmp_path / method / 'iter_2.pth'
    if not checkpoint.exists():
        checkpoint = tmp_path / method / 'epoch_1.pth'
    code, printed, err = xtune('convert', 'pth_to_hf', config, checkpoint, out)
    assert code == 0, err
    if method == 'full':
        assert 'holds the same' in printed or model_class in TWO_NAMES
        plain, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
        assert not any(info[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), info
    else:
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out)
    probe = Probe.read(out)
    found = probe.compare(logits_of(plain.eval(), probe.ids, CPU))
    assert found['mean_kl'] < 1e-3 and found['relative_error'] < 1e-2, found
