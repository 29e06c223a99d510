"""From a checkpoint to folders that transformers and peft load without xtune."""

import json
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = [{'role': 'user', 'content': 'What is 2 plus 2?'}]


def run_training(make_config, xtune, method, **options):
    config = make_config(method, **{'schedule.max_epochs': 1, 'optimizer.lr': 5e-2, **options})
    code, _, err = xtune('train', config)
    assert code == 0, err
    return config, config.with_suffix('') / 'epoch_1.pth'


def logits(llm, ids):
    with torch.no_grad():
        return llm(input_ids=ids).logits


def test_lora_to_adapter_to_merged_model(make_config, xtune, tiny_model, tmp_path):
    config, checkpoint = run_training(make_config, xtune, 'lora')
    adapter, merged = tmp_path / 'adapter', tmp_path / 'merged'
    code, out, err = xtune('convert', 'pth_to_hf', config, checkpoint, adapter)
    assert code == 0 and 'adapter' in out, err
    beside = load_file(checkpoint.with_name('epoch_1_hf') / 'adapter_model.safetensors')
    written = load_file(adapter / 'adapter_model.safetensors')
    assert beside.keys() == written.keys() and all(torch.equal(beside[k], written[k]) for k in written)

    code, out, err = xtune('convert', 'merge', tiny_model, adapter, merged, '--max-shard-size', '1MB')
    assert code == 0 and 'largest logit difference' in out, err
    report = json.loads((merged / 'merge_report.json').read_text())
    assert report['max_abs_diff'] < 1e-4 and report['dtype'] == 'float32'

    ids = torch.arange(3, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain = logits(base, ids)
    on_base = logits(PeftModel.from_pretrained(base, adapter), ids)
    in_one = logits(AutoModelForCausalLM.from_pretrained(merged), ids)
    assert (on_base - plain).abs().max() > 1e-2
    torch.testing.assert_close(in_one, on_base, rtol=0, atol=1e-4)


def test_template_and_stop_tokens_travel_and_need_no_xtune(make_config, xtune, tiny_model, tmp_path):
    config, checkpoint = run_training(make_config, xtune, 'lora')
    xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'adapter')
    xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'merged')
    code = (
        'import sys\n'
        'from transformers import AutoModelForCausalLM, AutoTokenizer\n'
        'tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n'
        'llm = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n'
        f'inputs = tokenizer.apply_chat_template({PROMPT!r}, add_generation_prompt=True, return_tensors="pt", '
        'return_dict=True)\n'
        'llm.generate(**inputs, max_new_tokens=2)\n'
        'assert "xtune" not in sys.modules\n'
        'print(repr(tokenizer.decode(inputs["input_ids"][0])), llm.generation_config.eos_token_id)\n'
    )
    out = subprocess.run([sys.executable, '-c', code, tmp_path / 'merged'], capture_output=True, text=True, check=True)
    prompt = '<|im_start|>user\nWhat is 2 plus 2?<|im_end|>\n<|im_start|>assistant\n'
    assert out.stdout.strip().endswith(f'{prompt!r} [2]')


def test_qlora_adapter_merges_into_the_full_precision_base(make_config, xtune, tiny_model, tmp_path):
    config, checkpoint = run_training(make_config, xtune, 'qlora')
    assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'adapter')[0] == 0
    assert xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'merged')[0] == 0
    assert 'quantization_config' not in json.loads((tmp_path / 'merged' / 'config.json').read_text())


def test_full_checkpoint_becomes_a_model_in_the_type_of_its_base(make_config, xtune, tiny_model, tmp_path):
    base = tmp_path / 'bf16'
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    config, checkpoint = run_training(make_config, xtune, 'full', base_model=str(base), **{'optimizer.lr': 1e-2})
    code, out, err = xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf', '--max-shard-size', '1MB')
    assert code == 0 and 'model' in out, err
    llm = AutoModelForCausalLM.from_pretrained(tmp_path / 'hf', dtype='auto')
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    assert llm.dtype == torch.bfloat16 and len(list((tmp_path / 'hf').glob('*.safetensors'))) > 1
    for name, parameter in llm.named_parameters():
        assert torch.equal(parameter, state[name].to(torch.bfloat16)), name
    assert AutoTokenizer.from_pretrained(tmp_path / 'hf').chat_template


def test_split_keeps_every_tensor_and_every_other_file(xtune, tiny_model, tmp_path):
    code, out, _ = xtune('convert', 'split', tiny_model, tmp_path / 'small', '--max-shard-size', '100KB')
    assert code == 0 and 'weight files' in out
    one, two = (AutoModelForCausalLM.from_pretrained(p) for p in (tiny_model, tmp_path / 'small'))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    assert (tmp_path / 'small' / 'tokenizer.json').exists()
    assert not (tmp_path / 'small' / 'model.safetensors').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('merge', 'MODEL', 'MODEL', 'NEW'), 'adapter_config.json'),
        (('merge', 'NOWHERE', 'MODEL', 'NEW'), 'nowhere'),
        (('split', 'MODEL', 'NEW', '--max-shard-size', 'big'), '--max-shard-size'),
        (('split', 'MODEL', 'MODEL'), 'tiny'),
        (('split', 'NOWHERE', 'NEW'), 'nowhere'),
    ],
)
def test_wrong_folders_are_named_and_nothing_is_left(arguments, message, xtune, tiny_model, tmp_path):
    places = {'MODEL': tiny_model, 'NEW': tmp_path / 'new', 'NOWHERE': tmp_path / 'nowhere'}
    code, _, err = xtune('convert', *(places.get(a, a) for a in arguments))
    assert code == 2 and message in err
    assert not (tmp_path / 'new').exists() and not list(tmp_path.glob('.*tmp'))


def test_merge_refuses_a_model_with_other_logits(make_config, xtune, tiny_model, tmp_path, monkeypatch):
    config, checkpoint = run_training(make_config, xtune, 'lora')
    xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'adapter')
    monkeypatch.setattr('xtune.export.merge_weights.MAX_KL', -1.0)
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'merged')
    assert code == 2 and 'mean KL' in err and not (tmp_path / 'merged').exists()


def test_pth_to_hf_uses_the_config_in_the_checkpoint_and_names_changed_options(
    make_config, xtune, tiny_model, tmp_path
):
    base = tmp_path / 'trained_on'
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    config = make_config('lora', **{'schedule.max_steps': 1, 'chat_template': 'chatml'})
    assert xtune('train', config, '--cfg-options', f'base_model={base}', 'chat_template=vicuna')[0] == 0
    checkpoint = config.with_suffix('') / 'iter_1.pth'
    code, out, err = xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')
    assert code == 0 and str(base) in out and '`chat_template`' in out, err
    assert json.loads((tmp_path / 'hf' / 'adapter_config.json').read_text())['base_model_name_or_path'] == str(base)
    assert 'USER:' in AutoTokenizer.from_pretrained(tmp_path / 'hf').chat_template
    # Even a config of another method, and one that cannot be read, change nothing.
    for name, text in (('full', make_config('full', 'other').read_text()), ('broken', 'lora = dict(')):
        (tmp_path / f'{name}.py').write_text(text)
        code, out, err = xtune('convert', 'pth_to_hf', tmp_path / f'{name}.py', checkpoint, tmp_path / name)
        assert code == 0 and 'note:' in out and (tmp_path / name / 'adapter_config.json').is_file(), err


def test_pth_to_hf_needs_no_map_function_of_the_user(make_config, xtune, tmp_path, monkeypatch):
    import sys

    module = tmp_path / 'my_map.py'
    module.write_text(
        'def to_chat(row):\n    pairs = [("user", row["instruction"]), ("assistant", row["output"])]\n'
        '    return [dict(role=role, content=text) for role, text in pairs]\n'
    )
    config = make_config('lora', **{'train_dataset.map_fn': 'my_map.to_chat', 'custom_imports': ['my_map']})
    code, _, err = xtune('train', config, '--cfg-options', 'schedule.max_steps=1')
    assert code == 0, err
    module.unlink()
    monkeypatch.delitem(sys.modules, 'my_map')
    code, _, err = xtune('convert', 'pth_to_hf', config, config.with_suffix('') / 'iter_1.pth', tmp_path / 'hf')
    assert code == 0, err


def test_a_base_that_moved_is_taken_from_the_config_and_another_tokenizer_is_refused(
    make_config, xtune, tiny_model, tmp_path
):
    import shutil

    base, moved = tmp_path / 'base', tmp_path / 'moved'
    shutil.copytree(tiny_model, base)
    config = make_config('lora', base_model=str(base), **{'schedule.max_steps': 1})
    assert xtune('train', config)[0] == 0
    checkpoint = config.with_suffix('') / 'iter_1.pth'
    base.rename(moved)
    config.write_text(config.read_text().replace(str(base), str(moved)))
    code, out, err = xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')
    assert code == 0, err
    assert json.loads((tmp_path / 'hf' / 'adapter_config.json').read_text())['base_model_name_or_path'] == str(moved)
    tokenizer = AutoTokenizer.from_pretrained(moved)
    tokenizer.add_tokens(['<|another|>'])
    tokenizer.save_pretrained(moved)
    code, _, err = xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'other')
    assert code == 2 and 'tokenizer' in err and not (tmp_path / 'other').exists()


def test_split_ignores_other_weight_files(xtune, tiny_model, tmp_path):
    import shutil

    source = tmp_path / 'source'
    shutil.copytree(tiny_model, source)
    shutil.copy(source / 'model.safetensors', source / 'consolidated.safetensors')
    (source / 'training_args.bin').write_bytes(b'not a model')
    assert xtune('convert', 'split', source, tmp_path / 'small')[0] == 0
    assert len(AutoModelForCausalLM.from_pretrained(tmp_path / 'small').state_dict())
    (source / 'model.safetensors').write_bytes((source / 'model.safetensors').read_bytes()[:1000])
    code, _, err = xtune('convert', 'split', source, tmp_path / 'other')
    assert code == 2 and 'model.safetensors' in err and not (tmp_path / 'other').exists()


def test_merge_refuses_an_adapter_on_one_of_two_tied_embeddings(make_config, xtune, golden, tiny_model, tmp_path):
    options = {'lora.target_modules': ['q_proj', 'embed_tokens']}
    config, checkpoint = run_training(make_config, xtune, 'lora', **options)
    assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'adapter')[0] == 0
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'adapter', tmp_path / 'merged')
    assert code == 2 and 'embed_tokens' in err
    golden('export.tied_embeddings', err)


def test_damaged_weights_and_unknown_models_are_named(xtune, tiny_model, tmp_path):
    import shutil

    shutil.copytree(tiny_model, tmp_path / 'cut')
    (tmp_path / 'cut' / 'model.safetensors').write_bytes(b'12345678')
    code, _, err = xtune('chat', tmp_path / 'cut', '--prompt', 'Hi')
    assert code == 2 and 'cannot be loaded' in err
    code, _, err = xtune('convert', 'merge', 'foo/bar', tiny_model, tmp_path / 'new')
    assert code == 2 and 'has no adapter_config.json' in err
