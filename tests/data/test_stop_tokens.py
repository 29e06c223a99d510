"""Generation stops at the tokens that end assistant messages in training."""

import ast
import re

import pytest

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.stop_tokens import stop_token_ids
from xtune.errors import TemplateError
from xtune.templates.resolve import resolve
from xtune.templates.template import ChatTemplate

EOS = 'the eos'
STOPS = {
    'baichuan_chat': {'<reserved_102>', EOS},
    'baichuan2_chat': {'<reserved_106>', EOS},
    'chatglm2': {EOS},
    'chatglm3': {'<|user|>', '<|observation|>', EOS},
    'chatml': {'<|im_end|>', EOS},
    'code_llama_70b_chat': {'<step>', EOS},
    'cohere_chat': {'<|END_OF_TURN_TOKEN|>', EOS},
    'deepseek_coder': {'<|EOT|>', EOS},
    'gemma': {'<end_of_turn>', EOS},
    'internlm_chat': {'<eoa>', EOS},
    'internlm2_chat': {'<|im_end|>', EOS},
    'llama2_chat': {EOS},
    'llama3_chat': {'<|eot_id|>', EOS},
    'minicpm': {EOS},
    'mistral': {EOS},
    'mistral_v3': {EOS},
    'moss_sft': {EOS},
    'phi3_chat': {'<|end|>', EOS},
    'plain': {EOS},
    'vicuna': {EOS},
    'zephyr': {EOS},
}
MINE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}END{% endgeneration %}"
    '{% else %}{{ m.content }}{% endif %}\n{% endfor %}'
)
OF_SEVERAL_TOKENS = sorted(name for name, stops in STOPS.items() if stops != {EOS})


def stops_of(chat_tokenizer):
    """Return the stop tokens as text, in order."""
    tokenizer = chat_tokenizer.tokenizer
    ids = stop_token_ids(chat_tokenizer)
    return [EOS if i == tokenizer.eos_token_id else tokenizer.convert_ids_to_tokens(i) for i in ids]


@pytest.mark.parametrize('name', STOPS)
def test_stops(kind, name, family):
    stops = stops_of(family(kind, name))
    wanted = {EOS if stop == '<|im_end|>' and kind == 'SmolLM2' else stop for stop in STOPS[name]}
    assert set(stops) == wanted and len(stops) == len(wanted)


def test_the_end_of_the_last_message_comes_first(family):
    """Programs that take a single stop token take this one."""
    assert stops_of(family('Llama 2', 'chatglm3')) == ['<|user|>', '<|observation|>', EOS]
    assert stops_of(family('Llama 2', 'baichuan2_chat')) == [EOS, '<reserved_106>']
    assert stops_of(family('Llama 2', 'llama3_chat')) == ['<|eot_id|>', EOS]


@pytest.mark.parametrize('kind', ['Llama 3', 'Llama 2', 'Llama 2 legacy', 'Baichuan, slow', 'byte by byte, slow'])
@pytest.mark.parametrize('name', OF_SEVERAL_TOKENS)
def test_a_stop_token_of_several_tokens_is_refused(kind, name, make):
    own = make(kind)
    chat_tokenizer = ChatTokenizer(own, resolve(name, own))
    with pytest.raises(TemplateError) as caught:
        stop_token_ids(chat_tokenizer)
    match = re.match(r"template `(\w+)` .*?('.*?')[^']* (\d+) tokens", str(caught.value))
    assert match[1] == name
    tag = ast.literal_eval(match[2])
    assert tag.strip() in STOPS[name] and int(match[3]) == len(own(tag, add_special_tokens=False)['input_ids']) > 1


@pytest.mark.parametrize('end, count', [(' So be it.', 4), ('', 0)])
def test_the_stop_token_of_a_custom_template_is_checked(end, count, make):
    own = make('SmolLM2')
    with pytest.raises(TemplateError, match=f"`mine` .*'{end}'.* {count} tokens"):
        stop_token_ids(ChatTokenizer(own, ChatTemplate('mine', MINE.replace('END', end), {}, ())))


def test_a_template_with_wrong_generation_marks_is_refused(make):
    own = make('SmolLM2')
    source = '{% for m in messages %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endfor %}'
    with pytest.raises(TemplateError, match='`mine` has 4 .* 2'):
        stop_token_ids(ChatTokenizer(own, ChatTemplate('mine', source, {}, ())))


def test_a_tokenizer_without_eos(make):
    own = make('Llama 2', ['<|im_start|>', '<|im_end|>'])
    own.eos_token = None
    chat_tokenizer = ChatTokenizer(own, resolve('chatml', own))
    assert [own.convert_ids_to_tokens(i) for i in stop_token_ids(chat_tokenizer)] == ['<|im_end|>']


@pytest.mark.parametrize('name', ['chatml', 'auto', 'qwen3_5'])
def test_an_eos_that_starts_a_turn_is_no_stop_token(name, make):
    """Transformers 5.17 takes it for the eos of the GGUF of SmolLM2."""
    own = make('SmolLM2')
    own.eos_token = '<|im_start|>'
    own.chat_template = resolve('chatml', own).source
    assert stops_of(ChatTokenizer(own, resolve(name, own))) == ['<|im_end|>']


def test_an_eos_outside_the_conversation_is_a_stop_token(make):
    own = make('SmolLM2')
    own.eos_token = '<|endoftext|>'
    assert stops_of(ChatTokenizer(own, resolve('chatml', own))) == ['<|im_end|>', EOS]


@pytest.mark.parametrize('changed', ['m.content | upper', "m.content | replace(' ', '')", 'm.content[:3]'])
def test_a_template_that_changes_the_content_is_refused(family, changed):
    chat_tokenizer = family('SmolLM2', 'chatml')
    template = ChatTemplate('mine', MINE.replace('{{ m.content }}END', f'{{{{ {changed} }}}}END'), {}, ('END',))
    with pytest.raises(TemplateError, match="'Fine 7' became 'F"):
        stop_token_ids(ChatTokenizer(chat_tokenizer.tokenizer, template))
