"""Converted tokenizers return the ids of the originals; files that cannot be converted exactly are refused."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.errors import ModelError
from xtune.messages import Conversation, exchange
from xtune.models.legacy.chat import is_chat
from xtune.models.legacy.sentencepiece_file import read_sentencepiece
from xtune.models.legacy.tokenizers import legacy_tokenizer, stop_ids
from xtune.templates.resolve import resolve

FILES = Path(__file__).parent / 'files' / 'tokenizers'
FAMILIES = dict(internlm='internlm_7b', baichuan2='baichuan2_7b', chatglm3='chatglm3_6b', qwen='qwen_7b')
PREFIX = dict(internlm=[1], baichuan2=[], chatglm3=[581, 583], qwen=[])


def cases(family):
    return json.loads((FILES / family / 'cases.json').read_text(encoding='utf-8'))


@pytest.mark.parametrize('family', FAMILIES)
def test_ids_and_text_are_those_of_the_original(family, with_tokenizer, tmp_path):
    tokenizer = legacy_tokenizer(with_tokenizer(FAMILIES[family]))
    tokenizer.save_pretrained(tmp_path / 'saved')
    for made in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / 'saved')):
        for case in cases(family)['cases']:
            # The published Qwen tokenizer parses special tokens in text; sentencepiece has none.
            ids = made(case['text'], add_special_tokens=False, split_special_tokens=family != 'qwen')['input_ids']
            assert ids == case['ids'], case['text']
            assert made.decode(case['ids']) == case['decoded']
        assert made('hello', split_special_tokens=False)['input_ids'][: len(PREFIX[family])] == PREFIX[family]


def test_tokenizer_keeps_its_ids_beside_a_native_config(with_tokenizer, xtune, tmp_path):
    folder = with_tokenizer('internlm_7b')
    assert xtune('convert', 'legacy', folder, tmp_path / 'native')[0] == 0
    made = AutoTokenizer.from_pretrained(tmp_path / 'native')
    assert json.loads((tmp_path / 'native' / 'config.json').read_text())['model_type'] == 'llama'
    wanted = {case['text']: case['ids'] for case in cases('internlm')['cases']}
    for text, ids in wanted.items():
        assert made(text, add_special_tokens=False, split_special_tokens=True)['input_ids'] == ids


def test_special_tokens_of_each_family(with_tokenizer):
    internlm = legacy_tokenizer(with_tokenizer('internlm_7b'))
    assert (internlm.bos_token_id, internlm.eos_token_id, internlm.pad_token_id) == (1, 2, 2)
    assert internlm('a<eoh><eoa>', add_special_tokens=False)['input_ids'][1:] == [618, 619]
    baichuan = legacy_tokenizer(with_tokenizer('baichuan2_7b'))
    assert (baichuan.bos_token_id, baichuan.eos_token_id, baichuan.pad_token_id) == (1, 2, 0)
    qwen = legacy_tokenizer(with_tokenizer('qwen_7b'))
    assert (qwen.bos_token_id, qwen.eos_token_id, qwen.pad_token_id, len(qwen)) == (None, 520, 520, 728)
    assert qwen.convert_tokens_to_ids(['<|im_start|>', '<|im_end|>', '<|extra_204|>']) == [521, 522, 727]


def test_chatglm_starts_with_its_prefix_and_never_finds_it_inside_text(with_tokenizer):
    tokenizer = legacy_tokenizer(with_tokenizer('chatglm3_6b'))
    numbers = cases('chatglm3')['special_ids_chatglm3 (first five also chatglm2)']
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in numbers} == numbers
    assert tokenizer('[gMASK]sop', add_special_tokens=False)['input_ids'] == [581, 583]
    for text in ('sop', 'eop', '[MASK]', '[gMASK]', '[sMASK]', 'people', 'philosophy', 'a [gMASK]sop', 'sop\neop'):
        assert max(tokenizer(text, add_special_tokens=False)['input_ids']) < 580, text
    assert tokenizer.padding_side == 'left'


def test_chatglm_conversation_is_encoded_like_its_segments(with_tokenizer):
    tokenizer = legacy_tokenizer(with_tokenizer('chatglm3_6b'))
    wanted = cases('chatglm3')['chatglm3_chat_user_hello_world']
    chat_tokenizer = ChatTokenizer(tokenizer, resolve('auto', tokenizer))
    messages = [{'role': 'user', 'content': 'hello world'}]
    assert chat_tokenizer.prompt_ids(messages) == wanted
    rendered = chat_tokenizer.render(Conversation(exchange('hello world', 'hello')))
    [(ids, [(start, end)])] = chat_tokenizer.tokenize([rendered])
    assert ids[:start] == wanted and ids[start:end] == [471, 498, 304, 586]
    plain = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert plain == wanted


def test_only_chat_models_get_a_template(with_tokenizer):
    base, chat = with_tokenizer('qwen_7b'), with_tokenizer('qwen_7b', 'Qwen-7B-Chat')
    assert not is_chat(base, 'qwen') and legacy_tokenizer(base).chat_template is None
    assert is_chat(chat, 'qwen') and '<|im_start|>' in legacy_tokenizer(chat).chat_template
    assert stop_ids(base, 'qwen') == [520] and stop_ids(chat, 'qwen') == [520, 522]
    glm, glm_base = with_tokenizer('chatglm3_6b'), with_tokenizer('chatglm3_6b', 'chatglm3-6b-base')
    assert stop_ids(glm, 'chatglm3') == [2, 586, 588]
    assert legacy_tokenizer(glm_base).chat_template is None


def test_chat_tokens_that_generation_config_names_by_id_are_special_tokens(with_tokenizer):
    folder = with_tokenizer('baichuan2_7b')
    text = read_sentencepiece(folder / 'tokenizer.model').pieces[300].text
    marks = dict(user_token_id=300, assistant_token_id=301)
    (folder / 'generation_config.json').write_text(json.dumps(marks))
    ids = legacy_tokenizer(folder)(f'hi{text}hi', add_special_tokens=False)['input_ids']
    assert 300 in ids and legacy_tokenizer(folder).chat_template
    (folder / 'generation_config.json').write_text(json.dumps(marks | dict(user_token_id=900)))
    with pytest.raises(ModelError, match=r'generation_config.json .*\[900, 301\]'):
        legacy_tokenizer(folder)


def test_added_tokens_keep_their_ids(with_tokenizer):
    folder = with_tokenizer('internlm_7b')
    (folder / 'added_tokens.json').write_text(json.dumps({'<b>': 621, '<a>': 620}))
    ids = legacy_tokenizer(folder)('hello<a><b>', add_special_tokens=False)['input_ids']
    assert ids[-2:] == [620, 621]
    (folder / 'added_tokens.json').write_text(json.dumps({'<b>': 700}))
    with pytest.raises(ModelError, match="'<b>' .*700"):
        legacy_tokenizer(folder)


def test_the_conversion_is_cached_by_its_source_files(with_tokenizer, tmp_path):
    folder = with_tokenizer('internlm_7b')
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    legacy_tokenizer(folder)
    [cached] = (tmp_path / 'cache' / 'tokenizers').iterdir()
    written = (cached / 'tokenizer.json').stat().st_mtime_ns
    legacy_tokenizer(folder)
    assert (cached / 'tokenizer.json').stat().st_mtime_ns == written
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    settings = json.loads((folder / 'tokenizer_config.json').read_text())
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings | dict(add_bos_token=False)))
    assert legacy_tokenizer(folder)('hello')['input_ids'][0] != 1
    assert len(list((tmp_path / 'cache' / 'tokenizers').iterdir())) == 2


def test_missing_and_damaged_files_are_named(with_tokenizer):
    folder = with_tokenizer('internlm_7b')
    (folder / 'tokenizer.model').write_bytes((folder / 'tokenizer.model').read_bytes()[:700])
    with pytest.raises(ModelError, match='tokenizer.model (is damaged|cannot be converted)'):
        legacy_tokenizer(folder)
    (folder / 'tokenizer.model').unlink()
    with pytest.raises(ModelError, match='has no tokenizer.model.*internlm'):
        legacy_tokenizer(folder)
    folder = with_tokenizer('qwen_7b')
    lines = (folder / 'qwen.tiktoken').read_bytes().splitlines()
    for damaged, message in ((lines[:-3] + [b'%%% 519'], 'line 518'), (lines[:9] + lines[10:], 'ranks')):
        (folder / 'qwen.tiktoken').write_bytes(b'\n'.join(damaged))
        with pytest.raises(ModelError, match=f'qwen.tiktoken.*{message}'):
            legacy_tokenizer(folder)
