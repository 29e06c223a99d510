"""Chat: the model folder's own template and stop tokens, several turns, and its commands."""

import io

import pytest

from xtune.chat.session import ChatSettings
from xtune.chat.terminal import open_session, talk

pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def shared(model_dir):
    return open_session(str(model_dir), settings=ChatSettings(max_new_tokens=8))


@pytest.fixture
def session(shared):
    shared.reset()
    shared.system = None
    return shared


def test_response_ends_at_the_stop_token_and_is_in_the_history(session):
    session.settings.max_new_tokens = 60
    reply = session.ask('Answer with one word: what is the capital of France?')
    assert 'Paris' in reply and '<|im_end|>' not in reply and len(reply) < 200
    assert [m['role'] for m in session.history] == ['user', 'assistant']
    session.settings.max_new_tokens = 8


def test_prompt_contains_all_turns(session):
    session.ask('My name is Ada.')
    session.ask('What is my name?')
    text = session.chat_tokenizer.template.prompt([*session.history, {'role': 'user', 'content': 'x'}])
    assert text.count('<|im_start|>user') == 3 and text.count('<|im_start|>assistant') == 3


def test_undo_edit_reset_history_system(session, monkeypatch, capsys):
    lines = 'Hello\n/history\n/edit Goodbye\n/history\n/undo\n/undo\n/system Be brief.\n/bogus\n/exit\n'
    monkeypatch.setattr('sys.stdin', io.StringIO(lines))
    talk(session)
    out = capsys.readouterr().out
    assert 'user: Hello' in out and 'user: Goodbye' in out
    assert 'removed: Goodbye' in out and 'nothing to undo' in out
    assert session.system == 'Be brief.' and session.history == [] and '/history' in out


def test_end_of_input_exits(session, monkeypatch):
    monkeypatch.setattr('sys.stdin', io.StringIO(''))
    talk(session)


@pytest.mark.integration
def test_greedy_and_seeded_sampling_are_reproducible(model_dir, xtune):
    arguments = ('chat', model_dir, '--prompt', 'Name a colour.', '--max-new-tokens', '6')
    assert xtune(*arguments)[1] == xtune(*arguments)[1]
    sampled = (*arguments, '--temperature', '1.5', '--seed', '7')
    assert xtune(*sampled)[1] == xtune(*sampled)[1]


@pytest.mark.parametrize('bits', [4, 8])
def test_quantized_chat(bits, tiny_model, xtune):
    code, _, err = xtune('chat', tiny_model, '--bits', bits, '--prompt', 'Hi', '--max-new-tokens', '2')
    assert code == 0, err
    assert err.count('\n') <= 2  # no warning for every layer and call


def test_bits_without_bitsandbytes_says_how_to_install(tiny_model, xtune, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *a: None if name == 'bitsandbytes' else real(name, *a)
    )
    code, _, err = xtune('chat', tiny_model, '--bits', '4', '--prompt', 'Hi')
    assert code == 2 and 'pip install bitsandbytes' in err


def test_wrong_models_and_options(tiny_model, tmp_path, xtune):
    import shutil

    code, _, err = xtune('chat', tmp_path / 'nowhere', '--prompt', 'Hi')
    assert code == 2 and 'does not exist' in err
    bare = tmp_path / 'bare'
    shutil.copytree(tiny_model, bare)
    (bare / 'model.safetensors').unlink()
    code, _, err = xtune('chat', bare, '--prompt', 'Hi')
    assert code == 2 and 'no weights' in err
    code, _, err = xtune('chat', tiny_model, '--adapter', tiny_model, '--prompt', 'Hi')
    assert code == 2 and 'has no adapter_config.json' in err
    code, _, err = xtune('chat', tiny_model, '--temperature', '-1')
    assert code == 2 and 'between' in err
    shutil.copytree(tiny_model, tmp_path / 'mute')
    (tmp_path / 'mute' / 'chat_template.jinja').unlink()
    code, _, err = xtune('chat', tmp_path / 'mute', '--prompt', 'Hi')
    assert code == 2 and 'no chat template' in err


def test_greedy_overrides_the_generation_config(shared):
    from xtune.inference.generate import generate_ids

    ids = shared.chat_tokenizer.tokenizer('one two one two one two', return_tensors='pt')['input_ids']
    plain = generate_ids(shared.llm, ids, [2], max_new_tokens=6)
    shared.llm.generation_config.repetition_penalty = 50.0
    try:
        assert generate_ids(shared.llm, ids, [2], max_new_tokens=6).tolist() == plain.tolist()
    finally:
        shared.llm.generation_config.repetition_penalty = None
