"""PiSSA and OLoRA: trained, resumed and exported as a change of the original base."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.errors import CheckpointError, ConfigError, ModelError
from xtune.hf_format.writer import ExportInfo
from xtune.methods.residual_init import as_plain_lora, initial_adapter_state, subtract_initial_adapter

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
    """Return the model of the training: the residual base with the adapter."""
    content = torch.load(checkpoint, weights_only=True)
    job = wire(load(config))
    base = AutoModelForCausalLM.from_pretrained(job.values.base_model)
    half = job.values.precision == 'bf16'
    llm = get_peft_model(base, job.lora(init_lora_weights=True))
    initial, state = content['initial_adapter'], content['state_dict']
    for name, layer in llm.named_modules():
        if hasattr(layer, 'lora_A'):
            a, b = (f'{name}.lora_{part}.weight' for part in 'AB')
            rest = layer.base_layer.weight.data - layer.scaling['default'] * (initial[b] @ initial[a])
            layer.base_layer.weight.data = rest.bfloat16().float() if half else rest
            layer.lora_A.default.weight.data, layer.lora_B.default.weight.data = state[a], state[b]
            if 'default' in layer.lora_magnitude_vector:
                layer.lora_magnitude_vector.default.weight.data = state[f'{name}.lora_magnitude_vector']
    return llm


@pytest.mark.parametrize(
    ('start', 'options'),
    [
        ('pissa_niter_4', PATTERNS),
        pytest.param('pissa', {'precision': 'bf16'}, marks=pytest.mark.slow),
        pytest.param('olora', {'lora.use_dora': True}, marks=pytest.mark.slow),
    ],
    ids=['pissa_niter_4', 'pissa_bf16', 'olora_dora'],
)
def test_peft_and_merge_load_the_trained_model(start, options, make_config, xtune, tiny_model, tmp_path):
    options = {**SHORT, **options, 'lora.init_lora_weights': start, 'lora.r': 4, 'lora.lora_dropout': 0.0}
    config = make_config('lora', **options)
    code, _, err = xtune('train', config)
    assert code == 0, err
    first, last = (config.with_suffix('') / name for name in ('epoch_1.pth', 'iter_3.pth'))
    uninterrupted = losses(config.with_suffix(''))

    code, _, err = xtune('convert', 'pth_to_hf', config, last, tmp_path / 'adapter')
    assert code == 0, err
    written = load_file(tmp_path / 'adapter' / 'adapter_model.safetensors')
    beside = load_file(last.with_name('iter_3_hf') / 'adapter_model.safetensors')
    assert written.keys() == beside.keys() and all(torch.equal(written[k], beside[k]) for k in written)
    values = json.loads((tmp_path / 'adapter' / 'adapter_config.json').read_text())
    assert values['init_lora_weights'] is True and values['r'] == 8

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    atol = 1e-2 if 'precision' in options else 1e-4  # the residual base is rounded to bf16
    plain, trained = logits(base), logits(trained_model(config, last))
    assert (trained - plain).abs().max() > 1e-2
    for folder in (tmp_path / 'adapter', last.with_name('iter_3_hf')):
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        torch.testing.assert_close(logits(PeftModel.from_pretrained(base, folder)), trained, rtol=0, atol=atol)
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'merged')
    assert code == 0, err
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / 'merged')
    torch.testing.assert_close(logits(merged), trained, rtol=0, atol=atol)

    work_dir = tmp_path / 'resumed'
    code, _, err = xtune('train', config, '--work-dir', work_dir, '--resume', first)
    assert code == 0, err
    assert losses(work_dir) == uninterrupted[2:]
    again, before = (torch.load(folder / 'iter_3.pth', weights_only=True) for folder in (work_dir, last.parent))
    for part in ('state_dict', 'initial_adapter'):
        assert again[part].keys() == before[part].keys()
        assert all(torch.equal(again[part][name], tensor) for name, tensor in before[part].items())


@pytest.mark.parametrize('start', ['pissa', 'olora'])
def test_the_initial_adapter_is_that_of_peft(start, tiny_model):
    config = dict(r=4, lora_alpha=6, target_modules=['q_proj', 'down_proj'], task_type='CAUSAL_LM')
    peft = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(init_lora_weights=start, **config)
    )
    own = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(**config))
    subtract_initial_adapter(own, start)
    for (name, one), (_, other) in zip(peft.named_parameters(), own.named_parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5, msg=name)


def gpt2(start=None, stored=None, **lora):
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    settings = {**dict(r=3, lora_alpha=5, target_modules=['c_attn', 'c_proj'], fan_in_fan_out=True), **lora}
    llm = get_peft_model(GPT2LMHeadModel(config), LoraConfig(**settings))
    if start is not None:
        subtract_initial_adapter(llm, start, stored)
    return llm


def adapter_of(llm):
    state = get_peft_model_state_dict(llm, save_embedding_layers=False)
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def described(llm):
    return ExportInfo('', '', '', '', '', json.dumps(llm.peft_config['default'].to_dict(), default=list))


@pytest.mark.parametrize('start', ['pissa', 'pissa_niter_2', 'olora'])
def test_layers_with_transposed_weights(start):
    plain, llm = logits(gpt2()), gpt2(start)
    torch.testing.assert_close(logits(llm), plain, rtol=0, atol=1e-5)
    initial = initial_adapter_state(llm)['initial_adapter']
    torch.testing.assert_close(logits(gpt2(start, initial)), logits(llm), rtol=0, atol=0)
    for parameter in llm.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    state, info = as_plain_lora(adapter_of(llm), initial, described(llm))
    values = json.loads(info.adapter_config)
    loaded = gpt2(r=values['r'], lora_alpha=values['lora_alpha'])
    set_peft_model_state_dict(loaded, state)
    assert (logits(llm) - plain).abs().max() > 1e-2
    torch.testing.assert_close(logits(loaded), logits(llm), rtol=0, atol=1e-5)


def test_a_plain_adapter_is_not_changed():
    llm = gpt2()
    state, info = adapter_of(llm), described(llm)
    assert initial_adapter_state(llm) == {} and as_plain_lora(state, None, info) == (state, info)


@pytest.mark.parametrize(
    ('start', 'lora', 'message'),
    [
        ('pissa', dict(target_modules=['wte']), 'wte .*Embedding'),
        ('olora', dict(target_modules=['c_attn', 'lm_head']), 'lm_head'),
        ('pissa', dict(r=40), ' 32 .* 40'),
        ('pissa', dict(lora_alpha=0), ' scaling 0'),
    ],
)
def test_layers_that_do_not_support_the_initialization(start, lora, message):
    with pytest.raises(ModelError, match=f"init_lora_weights='{start}'.*{message}.*init_lora_weights=True"):
        gpt2(start, **lora)


def test_the_initial_adapter_of_another_adapter_is_refused():
    initial = initial_adapter_state(gpt2('pissa'))['initial_adapter']
    with pytest.raises(CheckpointError, match=r'lora_A.weight is \(3, 32\), \(2, 32\) here'):
        gpt2('pissa', initial, r=2)
    llm = gpt2()
    llm.peft_config['default'].init_lora_weights = 'pissa_niter_4'  # as earlier versions wrote it
    with pytest.raises(CheckpointError, match='initial adapter'):
        as_plain_lora(adapter_of(llm), None, described(llm))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'lora.init_lora_weights': 'eva'}, "'eva': .* True, 'gaussian'"),
        ({'lora.init_lora_weights': 'corda'}, "'corda': "),
        ({'lora.init_lora_weights': 'lora_ga'}, "'lora_ga': "),
        ({'lora.init_lora_weights': 'loftq', 'lora.loftq_config': {'loftq_bits': 4}}, 'qlora'),
        ({'lora.init_lora_weights': 'pisa'}, '`pissa`'),
        ({'lora.init_lora_weights': 'pissa_niter_x'}, "init_lora_weights`='pissa_niter_x'"),
        ({'lora.init_lora_weights': 'pissa', 'lora.target_parameters': ['experts.down_proj']}, 'target_parameters'),
    ],
)
def test_initializations_that_are_refused_before_data_are_prepared(options, message, make_config):
    with pytest.raises(ConfigError, match=message):
        wire(load(make_config('lora', **options), check_types=True))


@pytest.mark.parametrize('start', ['pissa', 'olora', 'loftq'])
def test_initializations_that_are_refused_on_a_quantized_base(start, make_config):
    options = {'lora.init_lora_weights': start, 'lora.loftq_config': {'loftq_bits': 4} if start == 'loftq' else None}
    with pytest.raises(ConfigError, match=f"init_lora_weights`?='{start}'"):
        wire(load(make_config('qlora', **options), check_types=True))
