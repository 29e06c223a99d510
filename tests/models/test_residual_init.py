"""PiSSA and OLoRA: trained, resumed and exported as what they are, a change of the original base."""

import json
import math
from collections import defaultdict

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine.checks import strategy
from xtune.errors import CheckpointError, ConfigError, ModelError
from xtune.models.export import ExportInfo
from xtune.models.residual_init import initial_of, ordinary_lora, split_base
from xtune.parallel.world import World

CPU = torch.device('cpu')
SHORT = {'schedule.max_steps': 3, 'checkpoint.every_steps': 1, 'optimizer.lr': 1e-2}
PATTERNS = {'lora.use_rslora': True, 'lora.rank_pattern': {'q_proj': 2}, 'lora.alpha_pattern': {'v_proj': 9}}
IDS = torch.arange(3, 40)[None]


def logits(llm):
    with torch.no_grad():
        return llm.eval()(input_ids=IDS).logits


def losses(folder):
    return [json.loads(line)['loss'] for line in (folder / 'metrics.jsonl').read_text().splitlines() if 'loss' in line]


def trained_model(config, checkpoint):
    """Return the model as it was in training: base without the start of the adapter, and the adapter."""
    content = torch.load(checkpoint, weights_only=True)
    job = wire(load(config))
    base = AutoModelForCausalLM.from_pretrained(job.values.base_model)
    llm = get_peft_model(base, job.lora(init_lora_weights=True))
    initial, state = content['initial_adapter'], content['state_dict']
    for name, layer in llm.named_modules():
        if hasattr(layer, 'lora_A'):
            a, b = (f'{name}.lora_{part}.weight' for part in 'AB')
            layer.base_layer.weight.data -= layer.scaling['default'] * (initial[b] @ initial[a])
            layer.lora_A.default.weight.data, layer.lora_B.default.weight.data = state[a], state[b]
            if 'default' in layer.lora_magnitude_vector:
                layer.lora_magnitude_vector.default.weight.data = state[f'{name}.lora_magnitude_vector']
    return llm


@pytest.mark.parametrize(
    ('start', 'options'),
    [
        ('pissa', {}),
        ('pissa_niter_4', PATTERNS),
        ('olora', {'lora.use_dora': True}),
    ],
    ids=['pissa', 'pissa_niter_4', 'olora_dora'],
)
def test_what_was_trained_is_what_peft_and_merge_load(start, options, make_config, xtune, tiny_model, tmp_path):
    options = {**SHORT, **options, 'lora.init_lora_weights': start, 'lora.r': 4, 'lora.lora_dropout': 0.0}
    config = make_config('lora', **options)
    code, _, err = xtune('train', config)
    assert code == 0, err
    first, last = (config.with_suffix('') / f'iter_{n}.pth' for n in (1, 3))
    whole = losses(config.with_suffix(''))

    code, _, err = xtune('convert', 'pth_to_hf', config, last, tmp_path / 'adapter')
    assert code == 0, err
    written = load_file(tmp_path / 'adapter' / 'adapter_model.safetensors')
    beside = load_file(last.with_name('iter_3_hf') / 'adapter_model.safetensors')
    assert written.keys() == beside.keys() and all(torch.equal(written[k], beside[k]) for k in written)
    values = json.loads((tmp_path / 'adapter' / 'adapter_config.json').read_text())
    assert values['init_lora_weights'] is True and values['r'] == 8

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain, trained = logits(base), logits(trained_model(config, last))
    assert (trained - plain).abs().max() > 1e-2
    for folder in (tmp_path / 'adapter', last.with_name('iter_3_hf')):
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        torch.testing.assert_close(logits(PeftModel.from_pretrained(base, folder)), trained, rtol=0, atol=1e-4)
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'merged')
    assert code == 0, err
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / 'merged')
    torch.testing.assert_close(logits(merged), trained, rtol=0, atol=1e-4)

    work_dir = tmp_path / 'resumed'
    code, _, err = xtune('train', config, '--work-dir', work_dir, '--resume', first)
    assert code == 0, err
    assert losses(work_dir) == whole[1:]
    again, before = (torch.load(folder / 'iter_3.pth', weights_only=True) for folder in (work_dir, last.parent))
    for part in ('state_dict', 'initial_adapter'):
        assert again[part].keys() == before[part].keys()
        assert all(torch.equal(again[part][name], tensor) for name, tensor in before[part].items())
