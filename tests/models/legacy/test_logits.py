"""Native models have the logits of the published code: single, padded and long sequences, and greedy decoding."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xtune.models.legacy.load import load_legacy
from xtune.ops.nf4_dequant import disable_cpu_inference_format

FILES = Path(__file__).parent / 'files'
NAMES = ('internlm_7b', 'baichuan_7b', 'baichuan2_7b', 'baichuan_13b', 'qwen_7b', 'chatglm3_6b')
CLOSE = dict(rtol=0, atol=1e-4)
ON_CPU = dict(dtype=torch.float32, device_map={'': 'cpu'})


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize('name', NAMES)
def test_logits_and_greedy_ids_are_those_of_the_published_code(name, reference):
    expected = reference(name)
    model = load_legacy(FILES / name, **ON_CPU)
    single = logits(model, input_ids=expected['input_ids'])[..., ::7]
    torch.testing.assert_close(single, expected['logits'], **CLOSE)

    mask = expected['batch_attention_mask']
    batch = logits(model, input_ids=expected['batch_input_ids'], attention_mask=mask)[..., ::7]
    torch.testing.assert_close(batch[mask.bool()], expected['batch_logits'][mask.bool()], **CLOSE)

    long = logits(model, input_ids=expected['long_input_ids'])[..., ::7]
    torch.testing.assert_close(long, expected.get('long_logits_trainmode', expected['long_logits']), **CLOSE)

    new = model.generate(
        input_ids=expected['input_ids'], max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=None
    )
    assert torch.equal(new[:, 24:], expected['greedy_ids'])


@pytest.mark.parametrize('name', NAMES)
def test_loading_asks_no_question_and_does_not_change_the_folder(name, checkpoint):
    folder = checkpoint(name, change_config=lambda c: c.setdefault('auto_map', {'AutoConfig': 'modeling.Config'}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    load_legacy(folder, **ON_CPU)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_sharded_bin_files_load_like_one_safetensors_file(checkpoint, reference):
    folder = checkpoint('baichuan2_7b')
    state = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').unlink()
    names = sorted(state)
    index = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f'pytorch_model-{i:05d}-of-00002.bin'
        torch.save({name: state[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(dict(metadata={}, weight_map=index)))
    expected = reference('baichuan2_7b')
    model = load_legacy(folder, **ON_CPU)
    torch.testing.assert_close(logits(model, input_ids=expected['input_ids'])[..., ::7], expected['logits'], **CLOSE)

    (folder / 'pytorch_model.bin.index.json').unlink()
    torch.save(state, folder / 'pytorch_model.bin', _use_new_zipfile_serialization=False)  # as torch before 1.6 did
    old = load_legacy(folder, **ON_CPU)
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), model.parameters(), strict=True))


def test_the_stored_type_is_kept_unless_another_is_requested():
    assert load_legacy(FILES / 'internlm_7b').dtype == torch.float16
    assert load_legacy(FILES / 'qwen_7b').dtype == torch.float32  # its config names none, so that of its tensors
    assert load_legacy(FILES / 'internlm_7b', dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize('name', ('baichuan2_7b', 'baichuan_13b', 'chatglm3_6b'))
def test_nf4_base_with_an_adapter_trains(name, reference):
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig

    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.float32)
    model = load_legacy(FILES / name, quantization_config=quantized, **ON_CPU)
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == 'Linear4bit'
    model = get_peft_model(model, LoraConfig(target_modules='all-linear', r=4))
    disable_cpu_inference_format(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ids = reference(name)['input_ids']
    first = model(input_ids=ids, labels=ids).loss
    first.backward()
    optimizer.step()
    assert model(input_ids=ids, labels=ids).loss < first
