"""Pre-quantized bases: unsupported methods are refused before anything slow."""

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine import checks
from xtune.errors import ConfigError, XtuneError
from xtune.methods.quantized_checkpoints import method_of_stored
from xtune.models.loading.config_checks import describe_stored_quantization, stored_quantization
from xtune.parallel.env import World

CPU = torch.device('cpu')
FP8 = dict(quant_method='fp8', weight_block_size=[128, 128])
GPTQ = dict(quant_method='gptq', bits=4, group_size=128)
AWQ = dict(quant_method='awq', bits=4, group_size=128)
NF4 = dict(quant_method='bitsandbytes', load_in_4bit=True, bnb_4bit_quant_type='nf4')
INT8 = dict(quant_method='bitsandbytes', load_in_8bit=True)
PACKED = dict(quant_method='compressed-tensors', format='pack-quantized', quantization_status='compressed')
MXFP4 = dict(quant_method='mxfp4')


@pytest.fixture
def stored_as(tiny_model, tmp_path):
    """Return a function that copies the tiny model with a quantization_config in its config.json."""

    def make(settings):
        folder = tmp_path / 'stored'
        shutil.copytree(tiny_model, folder)
        values = json.loads((folder / 'config.json').read_text())
        (folder / 'config.json').write_text(json.dumps(values | dict(quantization_config=settings)))
        return str(folder)

    return make


def refused(config, world=None, **options):
    with pytest.raises(XtuneError) as error:
        checks.base(wire(load(config, options)), world or World(), CPU)
    return str(error.value)


@pytest.mark.parametrize('settings', [FP8, GPTQ, AWQ, NF4, INT8, PACKED], ids=lambda s: str(s)[17:34])
def test_quantized_weights_cannot_be_trained(settings, stored_as, make_config):
    message = refused(make_config('full', base_model=stored_as(settings)))
    assert f'stored in {settings["quant_method"]}' in message and 'lora preset' in message


@pytest.mark.parametrize('method', ['qlora', 'fp8_lora'])
@pytest.mark.parametrize('settings', [FP8, GPTQ, NF4], ids=lambda s: s['quant_method'])
def test_quantized_weights_are_not_quantized_again(settings, method, stored_as, make_config):
    message = refused(make_config(method, base_model=stored_as(settings)))
    assert f'stored in {settings["quant_method"]}' in message and 'quantization=None' in message


def test_train_chat_and_merge_refuse_before_anything_slow(stored_as, make_config, xtune, tmp_path):
    base = stored_as(FP8)
    code, out, err = xtune('train', make_config('full', base_model=base))
    assert code == 2 and 'stored in fp8' in err and 'rows' not in out
    code, _, err = xtune('chat', base, '--bits', '4', '--prompt', 'Hi')
    assert code == 2 and '--bits 4' in err and 'stored in fp8' in err
    assert not (tmp_path / 'cache' / 'data').exists()
    (tmp_path / 'adapter').mkdir()
    (tmp_path / 'adapter' / 'adapter_config.json').write_text('{}')
    save_file({'a': torch.zeros(1)}, tmp_path / 'adapter' / 'adapter_model.safetensors')
    code, _, err = xtune('convert', 'merge', base, tmp_path / 'adapter', tmp_path / 'merged')
    assert code == 2 and 'stored in fp8' in err


def test_weights_that_are_dequantized_while_loading_support_every_method(stored_as, make_config):
    base = stored_as(MXFP4)
    for method in ('full', 'lora'):
        checks.base(wire(load(make_config(method, base_model=base))), World(), CPU)
    checks.base(
        wire(load(make_config('lora', base_model=base, **{'lora.init_lora_weights': 'pissa', 'lora.r': 8}))),
        World(),
        CPU,
    )
    assert 'set quantization=None' in refused(make_config('qlora', base_model=base))


def test_strategies_and_initializations_of_an_adapter_on_a_pre_quantized_base(stored_as, make_config):
    config = make_config('lora', base_model=stored_as(NF4))
    checks.base(wire(load(config)), World(), CPU)
    assert 'strategy fsdp2' in refused(config, World(size=2), **{'strategy.name': 'fsdp2'})
    assert "init_lora_weights='olora'" in refused(config, **{'lora.init_lora_weights': 'olora'})
    assert method_of_stored(NF4 | dict(bnb_4bit_quant_storage='bfloat16')) == 'qlora'
    assert (method_of_stored(INT8), method_of_stored(GPTQ)) == ('int8_lora', 'other_quantized')


@pytest.mark.skipif(bool(find_spec('optimum')), reason='the package is there')
def test_a_package_that_is_missing_is_named(stored_as, make_config):
    message = refused(make_config('lora', base_model=stored_as(GPTQ)))
    assert 'stored in gptq (4 bits)' in message and 'pip install' in message


def test_the_quantization_config_of_text_config_counts():
    class Outer(LlamaConfig):
        def get_text_config(self, *_, **__):
            inner = LlamaConfig()
            inner.quantization_config = GPTQ
            return inner

    assert stored_quantization(Outer()) == GPTQ and describe_stored_quantization(Outer()) == 'stored in gptq (4 bits)'
    assert stored_quantization(LlamaConfig()) is None


@pytest.mark.slow
def test_an_adapter_trains_on_nf4_weights_as_they_are_stored(make_config, xtune, tiny_model, tmp_path):
    base = tmp_path / 'nf4'
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.float32)
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=settings).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    config = make_config('qlora', base_model=str(base), **{'schedule.max_steps': 1})
    with pytest.raises(ConfigError, match='set quantization=None'):
        checks.base(wire(load(config)), World(), CPU)
    code, out, err = xtune('train', config, '--cfg-options', 'quantization=None')
    assert code == 0 and 'stored in bitsandbytes (4 bits)' in out, err
