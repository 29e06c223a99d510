"""Tokenizer files of an export are the base's, with the chat template of the training, readable by transformers 4."""

import json
import shutil

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer

from xtune.hf_format.transformers4_tokenizer import write_tokenizer

SPECIAL = dict(unk_token='<unk>', bos_token='<|im_start|>', eos_token='<|im_end|>', pad_token='<pad>')
TEMPLATE = "{% for message in messages %}{{ '<|im_start|>' + message['content'] }}{% endfor %}\n"


def values(folder, name='tokenizer_config.json'):
    return json.loads((folder / name).read_text(encoding='utf-8'))


@pytest.fixture
def base(tmp_path):
    """A folder as on the hub: a tokenizer class of transformers 4, another chat template, and additional files."""
    folder = tmp_path / 'base'
    folder.mkdir()
    words = {word: i for i, word in enumerate((*SPECIAL.values(), 'hello', 'world', 'who', 'are', 'you'))}
    rules = Tokenizer(WordLevel(words, unk_token='<unk>'))
    rules.pre_tokenizer = Whitespace()
    rules.add_special_tokens(list(SPECIAL.values()))
    rules.save(str(folder / 'tokenizer.json'))
    config = dict(SPECIAL, tokenizer_class='PreTrainedTokenizerFast', chat_template='old', model_max_length=77)
    (folder / 'tokenizer_config.json').write_text(json.dumps(config), encoding='utf-8')
    more = dict(SPECIAL, additional_special_tokens=['<|im_start|>', '<|im_end|>'])
    (folder / 'special_tokens_map.json').write_text(json.dumps(more), encoding='utf-8')
    for name in (
        'vocab.json',
        'tokenizer.model',
        'merges.txt',
        'chat_template.jinja',
        'chat_template.json',
        'tekken.json',
    ):
        (folder / name).write_text('old', encoding='utf-8')
    return folder


def test_files_equal_those_of_the_base_except_for_the_template(base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    target = tmp_path / 'new'
    target.mkdir()
    tokenizer('hello', truncation=True, max_length=4)  # leaves truncation set in the tokenizer
    write_tokenizer(target, tokenizer, TEMPLATE)
    same = {'tokenizer.json', 'vocab.json', 'merges.txt', 'tokenizer.model', 'special_tokens_map.json'}
    assert {path.name for path in target.iterdir()} == same | {'tokenizer_config.json', 'chat_template.jinja'}
    for name in same:
        assert (target / name).read_bytes() == (base / name).read_bytes(), name
    assert values(target) == values(base) | dict(chat_template=TEMPLATE)
    assert (target / 'chat_template.jinja').read_text(encoding='utf-8') == TEMPLATE
    assert AutoTokenizer.from_pretrained(target).chat_template == TEMPLATE


def test_an_export_can_be_the_base_of_another_one(base, tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    write_tokenizer(tmp_path / 'one', AutoTokenizer.from_pretrained(base), TEMPLATE)
    write_tokenizer(tmp_path / 'two', AutoTokenizer.from_pretrained(tmp_path / 'one'))
    for path in (tmp_path / 'one').iterdir():
        assert (tmp_path / 'two' / path.name).read_bytes() == path.read_bytes()


def test_hub_names_are_read_from_the_cache(base, tmp_path, monkeypatch):
    commit = 'a' * 40
    place = tmp_path / 'hub' / 'models--some--model'
    shutil.copytree(base, place / 'snapshots' / commit)
    (place / 'refs').mkdir()
    (place / 'refs' / 'main').write_text(commit)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.name_or_path = 'some/model'
    (tmp_path / 'new').mkdir()
    write_tokenizer(tmp_path / 'new', tokenizer, TEMPLATE)
    assert values(tmp_path / 'new') == values(base) | dict(chat_template=TEMPLATE)


def test_a_changed_vocabulary_is_readable_by_both_versions(base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({'additional_special_tokens': ['<tool>', '</tool>']})
    (tmp_path / 'new').mkdir()
    write_tokenizer(tmp_path / 'new', tokenizer, TEMPLATE)
    written = values(tmp_path / 'new')
    assert written['tokenizer_class'] == 'PreTrainedTokenizerFast' and 'extra_special_tokens' not in written
    assert {'<tool>', '</tool>'} <= set(written['additional_special_tokens'])
    read = AutoTokenizer.from_pretrained(tmp_path / 'new')
    assert read.get_vocab() == tokenizer.get_vocab() and read.all_special_tokens == tokenizer.all_special_tokens
    assert read.chat_template == TEMPLATE


def test_changed_settings_are_written_too(base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base, eos_token='<pad>', padding_side='left')
    (tmp_path / 'new').mkdir()
    write_tokenizer(tmp_path / 'new', tokenizer, TEMPLATE)
    read = AutoTokenizer.from_pretrained(tmp_path / 'new')
    assert (read.eos_token, read.padding_side, read.chat_template) == ('<pad>', 'left', TEMPLATE)
