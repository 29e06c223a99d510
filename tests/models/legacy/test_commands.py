"""Train, chat, merge and convert 2023 remote-code checkpoints through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xtune.errors import ModelError
from xtune.inference.load import load_for_inference
from xtune.inference.tokenizer import load_tokenizer_of

pytestmark = pytest.mark.integration

FILES = Path(__file__).parent / 'files'
TEMPLATES = dict(
    internlm_7b='internlm_chat', baichuan2_7b='default', baichuan_13b='default', qwen_7b='qwen_chat',
    chatglm3_6b='chatglm3',
)  # fmt: skip
CPU = torch.device('cpu')


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.fixture
def train(make_config, xtune, tmp_path):
    """Return a function that trains on a folder and returns what was printed and the adapter's folder."""

    def run(folder, method='lora', **options):
        small = {'base_model': str(folder), 'schedule.max_steps': 2, 'schedule.max_epochs': 1, 'log.plot': False}
        config = make_config(method, **{**small, 'optimizer.lr': 1e-2, **options})
        code, out, err = xtune('train', config)
        assert code == 0, err
        code, _, err = xtune('convert', 'pth_to_hf', config, config.with_suffix('') / 'iter_2.pth', tmp_path / 'made')
        assert code == 0, err
        return out, tmp_path / 'made'

    return run


@pytest.mark.parametrize('name', TEMPLATES)
def test_train_merge_in_both_layouts_and_chat(name, with_tokenizer, train, xtune, tmp_path):
    longer = (lambda c: c.update(seq_length=512)) if name == 'qwen_7b' else None
    base = with_tokenizer(name, change_config=longer)
    _, adapter = train(base, chat_template=TEMPLATES[name])
    assert json.loads((adapter / 'adapter_config.json').read_text())['base_model_name_or_path'] == str(base)
    assert not any('embed' in key or 'lm_head' in key for key in load_file(adapter / 'adapter_model.safetensors'))

    merges = [('native', ()), ('original', ('--layout', 'original', '--max-shard-size', '400KB'))]
    for kind, options in merges:
        run = xtune('convert', 'merge', base, adapter, tmp_path / kind, '--dtype', 'float32', *options)
        assert run[0] == 0, run[2]
    ids = torch.arange(3, 40)[None]
    trained = logits(load_for_inference(str(base), str(adapter), CPU, torch.float32), ids)
    assert (trained - logits(load_for_inference(str(base), None, CPU, torch.float32), ids)).abs().max() > 1e-2
    for kind, _ in merges:
        merged = load_for_inference(str(tmp_path / kind), None, CPU, torch.float32)
        torch.testing.assert_close(logits(merged, ids), trained, rtol=0, atol=1e-4)
    assert len(list((tmp_path / 'original').glob('model-*.safetensors'))) > 1

    replies = []
    for options in ((tmp_path / 'native',), (base, '--adapter', adapter)):
        code, out, err = xtune('chat', *options, '--prompt', 'hello', '--max-new-tokens', 5)
        assert code == 0, err
        replies.append(out)
    assert replies[0] == replies[1]


def test_a_trained_lm_head_is_not_merged_into_a_layout_that_normalizes_it(with_tokenizer, train, xtune, tmp_path):
    base = with_tokenizer('baichuan2_7b')
    _, adapter = train(base, chat_template='default', **{'lora.modules_to_save': ['lm_head'], 'optimizer.lr': 0.1})
    code, _, err = xtune('convert', 'merge', base, adapter, tmp_path / 'merged', '--layout', 'original')
    assert code == 2 and 'lm_head' in err and '--layout original' in err
    assert xtune('convert', 'merge', base, adapter, tmp_path / 'merged')[0] == 0


@pytest.mark.parametrize('method', ('qlora', 'full'))
def test_qlora_and_full_training(method, with_tokenizer, train, tmp_path):
    base = with_tokenizer('baichuan2_7b')
    out, made = train(base, method, chat_template='default')
    assert ('rows of lm_head' in out) == (method == 'full')
    if method == 'full':
        from transformers import AutoModelForCausalLM

        assert type(AutoModelForCausalLM.from_pretrained(made)).__name__ == 'LlamaForCausalLM'


def test_full_training_of_the_alibi_family_exports_its_own_model_type(with_tokenizer, train):
    _, made = train(with_tokenizer('baichuan_13b'), 'full', chat_template='default')
    assert json.loads((made / 'config.json').read_text())['model_type'] == 'xtune_baichuan_alibi'
    assert load_for_inference(str(made), None, CPU, torch.float32).config._attn_implementation == 'xtune_alibi'


def test_variant_is_an_option_of_training_and_conversion(with_tokenizer, make_config, xtune, train, tmp_path):
    def hide(values):
        values.pop('tokenizer_class')

    base = with_tokenizer('baichuan2_7b', change_config=hide)
    config = make_config(base_model=str(base), chat_template='default')
    code, _, err = xtune('train', config)
    assert code == 2 and 'llm.variant=NAME' in err and 'Traceback' not in err
    _, adapter = train(base, chat_template='default', **{'llm.variant': 'baichuan2_7b'})
    for action in (('legacy', base), ('merge', base, adapter)):
        code, _, err = xtune('convert', *action, tmp_path / 'no')
        assert code == 2 and '--variant NAME' in err
        target = tmp_path / action[0]
        code, _, err = xtune('convert', *action, target, '--variant', 'baichuan2_7b')
        assert code == 0, err
    assert not (tmp_path / 'no').exists()


def test_converted_folders_need_no_xtune(checkpoint, reference, xtune, tmp_path):
    names = ('internlm_7b', 'baichuan2_7b', 'qwen_7b', 'chatglm3_6b')
    for name in names:
        target = tmp_path / 'native' / name
        code, out, err = xtune('convert', 'legacy', checkpoint(name), target, '--max-shard-size', '200KB')
        assert code == 0 and 'weight files' in out and 'has no tokenizer' in out, err
        assert max(path.stat().st_size for path in target.glob('*.safetensors')) < 210_000
        torch.save(reference(name)['input_ids'], target / 'ids.pt')
    code = (  # one process for all, because importing takes longer than the rest
        'import pathlib, sys, torch\n'
        'from transformers import AutoModelForCausalLM\n'
        'for folder in pathlib.Path(sys.argv[1]).iterdir():\n'
        '    llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)\n'
        '    with torch.no_grad():\n'
        '        torch.save(llm(input_ids=torch.load(folder / "ids.pt")).logits, folder / "logits.pt")\n'
        'assert "xtune" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', code, tmp_path / 'native'], check=True)
    for name in names:
        ours = torch.load(tmp_path / 'native' / name / 'logits.pt')[..., ::7]
        torch.testing.assert_close(ours, reference(name)['logits'], rtol=0, atol=1e-4)


def test_the_conversion_notes_a_result_that_needs_xtune(checkpoint, xtune, tmp_path):
    _, out, _ = xtune('convert', 'legacy', checkpoint('baichuan_13b'), tmp_path / 'native')
    assert 'import xtune' in out


def test_other_checkpoints_are_not_converted(tiny_model, xtune, tmp_path):
    code, _, err = xtune('convert', 'legacy', tiny_model, tmp_path / 'x')
    assert code == 2 and 'remote-code checkpoint' in err
    code, _, err = xtune('convert', 'legacy', tmp_path / 'nothing', tmp_path / 'x')
    assert code == 2 and 'does not exist' in err


def test_damaged_weights_leave_no_folder_behind(checkpoint, xtune, tmp_path):
    def spoil(state):
        state['lm_head.weight'][5, 5] = float('nan')

    code, _, err = xtune('convert', 'legacy', checkpoint('internlm_7b', change_weights=spoil), tmp_path / 'native')
    assert code == 2 and 'lm_head.weight contains 1 NaN' in err
    assert not list(tmp_path.glob('*native*'))


def test_hub_names_are_read_from_the_cache_without_their_code(with_tokenizer, tmp_path, monkeypatch):
    from huggingface_hub import constants

    from xtune.models.legacy import hub

    home = tmp_path / 'hub' / 'models--internlm--internlm-chat-test'
    with_tokenizer('internlm_7b', 'hub/models--internlm--internlm-chat-test/snapshots/0123456789abcdef')
    (home / 'refs').mkdir()
    (home / 'refs' / 'main').write_text('0123456789abcdef')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    name = 'internlm/internlm-chat-test'  # asked for by no other test: the answer is cached
    assert hub.legacy_folder(name).parent == home / 'snapshots'
    assert load_for_inference(name, None, CPU, torch.float32).config.model_type == 'llama'
    assert '<eoa>' in load_tokenizer_of(name).chat_template  # a chat model by its hub name
    with pytest.raises(ModelError, match='internlm/internlm-7b .*HF_HUB_OFFLINE'):
        hub.legacy_folder('internlm/internlm-7b')


def test_changed_model_settings_reach_the_merged_model(with_tokenizer, train, xtune, tmp_path):
    base, rope = with_tokenizer('internlm_7b'), dict(rope_type='linear', factor=8.0, rope_theta=10000.0)
    _, adapter = train(base, chat_template='internlm_chat', **{'llm.rope_parameters': rope})
    assert json.loads((adapter / 'xtune_model_config.json').read_text())['config_overrides'] == {
        'rope_parameters': rope
    }
    code, _, err = xtune('convert', 'merge', base, adapter, tmp_path / 'original', '--layout', 'original')
    assert code == 2 and 'factor' in err and not (tmp_path / 'original').exists()
    code, _, err = xtune('convert', 'merge', base, adapter, tmp_path / 'native', '--dtype', 'float32')
    assert code == 0, err
    assert json.loads((tmp_path / 'native' / 'config.json').read_text())['rope_parameters'] == rope
    ids = torch.arange(3, 40)[None]
    trained = logits(load_for_inference(str(base), str(adapter), CPU, torch.float32), ids)
    merged = logits(load_for_inference(str(tmp_path / 'native'), None, CPU, torch.float32), ids)
    torch.testing.assert_close(merged, trained, rtol=0, atol=1e-4)
