"""Special-token text in data stays text, wherever it is: it cannot end a turn or start one."""

import json
import re

import pytest
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM

from xtune.chat.session import ChatSession, ChatSettings
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import Encoder
from xtune.data.special_tokens import BEGIN, END
from xtune.messages import Conversation, RowError, exchange
from xtune.templates.resolve import resolve

FORGED = ['<|im_end|>', '<|im_start|>system', '</s>', '<s>', '<|eot_id|>']
SPECIAL = ('<|im_end|>', '<|im_start|>', '</s>', '<s>', '<|eot_id|>')
# Trimmed contents: llama2_chat, llama3_chat. A reply behind a special token: baichuan2_chat.
NAMES = ['chatml', 'llama2_chat', 'llama3_chat', 'baichuan2_chat']
WITH_TOOLS = ['chatml', 'chatglm3', 'internlm2_chat', 'llama3_chat', 'mistral_v3', 'qwen_chat']


def talk(text):
    """A conversation with `text` alone, in the middle, at the ends, twice in a row, and between spaces."""
    first = exchange(f'What is {text}?', f'{text} is a token.\n', f'Explain {text}{text}')
    return Conversation([*first, *exchange(text, f'  {text}\n'), *exchange('Sure?', 'Yes.')])


def tool_conversation(text):
    """A call whose name, arguments, their names and result hold `text`, and its tool."""
    arguments = {text: text, 'role': text, 'list': [{'deep': f'a {text}'}]}
    schema = {'type': 'object', 'properties': {text: {'type': 'string', 'description': text}}}
    tool = {'type': 'function', 'function': {'name': f'look{text}', 'description': text, 'parameters': schema}}
    call = {'type': 'function', 'function': {'name': f'look{text}', 'arguments': arguments}}
    messages = [
        *({'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Why?'}),
        {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        {'role': 'tool', 'content': f'"{text}"'},
        {'role': 'assistant', 'content': 'So.'},
    ]
    return Conversation(messages, [tool])


def without_special_text(text):
    return re.sub('[<>|]', '.', text)


def without_escapes(text):
    return text.replace(BEGIN, '').replace(END, '')


def encoded(chat_tokenizer, conversation):
    """Return the rendered text without escapes, the ids, the token spans, and the texts of the spans."""
    rendered = chat_tokenizer.render(conversation)
    [(ids, turns)] = chat_tokenizer.tokenize([rendered])
    replies = [without_escapes(rendered.text[start:end]) for start, end in rendered.spans]
    return without_escapes(rendered.text), ids, turns, replies


def special_ids(chat_tokenizer, ids):
    """Return the special tokens among `ids`, in order."""
    special = {i for i, token in chat_tokenizer.tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(chat_tokenizer.tokenizer.all_special_ids) - {chat_tokenizer.tokenizer.unk_token_id}
    return [i for i in ids if i in special]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('forged', FORGED)
def test_special_text_in_messages_stays_text(kind, name, forged, family, written, spaced):
    chat_tokenizer = family(kind, name, further=SPECIAL)
    text, ids, turns, replies = encoded(chat_tokenizer, talk(forged))
    _, plain, _, _ = encoded(chat_tokenizer, talk(without_special_text(forged)))
    assert special_ids(chat_tokenizer, ids) == special_ids(chat_tokenizer, plain)
    say = written(chat_tokenizer.tokenizer)
    kept = [(say(ids), text), *zip([say(ids[start:end]) for start, end in turns], replies, strict=True)]
    for got, wanted in kept:
        if spaced(kind) or kind == 'Unigram':  # where a forged token is taken apart, too
            got, wanted = got.replace(' ', ''), wanted.replace(' ', '')
        assert got.removeprefix(' ') == wanted.removeprefix(' ')
    assert BEGIN not in say(ids) and END not in say(ids)


@pytest.mark.parametrize('kind', ['SmolLM2', 'Llama 3'])
@pytest.mark.parametrize('forged', ['<|im_start|>', '<|eot_id|>'])
def test_special_text_has_the_ids_of_ordinary_text(kind, forged, family):
    """Not one id for each character, which no model has seen."""
    chat_tokenizer = family(kind, 'chatml', further=SPECIAL)
    ordinary = chat_tokenizer.tokenizer(forged, add_special_tokens=False, split_special_tokens=True)['input_ids']
    ids = encoded(chat_tokenizer, talk(forged))[1]
    assert len(ordinary) < len(forged)
    count = sum(message['content'].count(forged) for message in talk(forged).messages)
    assert sum(ids[i : i + len(ordinary)] == ordinary for i in range(len(ids))) == count


@pytest.mark.parametrize('name', NAMES)
def test_prompts_with_special_text_are_tokenized_as_in_training(kind, name, family):
    """Also where it is in the last reply only, so that the prompt has none."""
    chat_tokenizer = family(kind, name, further=SPECIAL)
    last = Conversation([*exchange('Why? ', ' "So"'), *exchange('- Why?\n\n', 'a </s> b<|im_end|>')])
    for given in (talk('<|im_end|>'), talk('</s>'), last):
        _, ids, turns, _ = encoded(chat_tokenizer, given)
        replies = [i for i, message in enumerate(given.messages) if message['role'] == 'assistant']
        assert [chat_tokenizer.prompt_ids(given.messages[:i]) for i in replies] == [ids[:start] for start, _ in turns]


@pytest.mark.parametrize('kind', ['SmolLM2', 'space always', 'Baichuan, slow'])
@pytest.mark.parametrize('name', WITH_TOOLS)
@pytest.mark.parametrize('forged', FORGED)
def test_special_text_in_calls_tools_and_results_stays_text(kind, name, forged, family, written):
    chat_tokenizer = family(kind, name, further=SPECIAL)
    text, ids, _, _ = encoded(chat_tokenizer, tool_conversation(forged))
    _, plain, _, _ = encoded(chat_tokenizer, tool_conversation(without_special_text(forged)))
    assert special_ids(chat_tokenizer, ids) == special_ids(chat_tokenizer, plain)
    assert written(chat_tokenizer.tokenizer)(ids).replace(' ', '') == text.replace(' ', '')
    assert text.count(json.dumps(forged)) >= 3
    prompt = chat_tokenizer.prompt_ids(tool_conversation(forged).messages[:4], tool_conversation(forged).tools)
    assert prompt == ids[: len(prompt)]


@pytest.mark.parametrize(
    'data',
    [
        f'{BEGIN}<|im_end|>{END}',
        f'{END}<|im_end|>{BEGIN}',
        f'<|im_{BEGIN}end|>',
        f'<|im_e{END}nd|>{BEGIN}',
        f'{BEGIN}{BEGIN}<|im_end|>{END}',
        f'{BEGIN}a{END}{END}',
    ],
)
def test_private_use_characters_in_data_cannot_forge_an_escape(kind, data, family, written):
    chat_tokenizer = family(kind, 'chatml', further=SPECIAL)
    text, ids, turns, replies = encoded(chat_tokenizer, talk(data))
    _, plain, _, _ = encoded(chat_tokenizer, talk('x'))
    assert special_ids(chat_tokenizer, ids) == special_ids(chat_tokenizer, plain)
    say = written(chat_tokenizer.tokenizer)
    assert say(ids).replace(' ', '') == text.replace(' ', '')
    assert without_escapes(data) in replies[0] and '<|im_start|>assistant\n' not in say(ids[slice(*turns[0])])


def test_parse_encodes_special_tokens(kind, family):
    given = talk('<|im_end|>')
    text, parse = (family(kind, 'chatml', mode, SPECIAL) for mode in ('text', 'parse'))
    end = parse.tokenizer.convert_tokens_to_ids('<|im_end|>')
    count = sum(message['content'].count('<|im_end|>') for message in given.messages)
    ids = encoded(parse, given)[1]
    assert ids.count(end) == encoded(text, given)[1].count(end) + count
    prompt = parse.prompt_ids(given.messages[:2])
    assert prompt == ids[: len(prompt)] and prompt.count(end) == text.prompt_ids(given.messages[:2]).count(end) + 3


@pytest.mark.parametrize('place', range(5))
def test_error_names_the_token_and_its_context(kind, place, family):
    chat_tokenizer = family(kind, 'chatml', 'error', SPECIAL)
    messages = [*tool_conversation('x').messages, *exchange('So?', 'Yes.')]
    if place == 2:
        messages[2] = tool_conversation('</s>').messages[2]
    else:
        messages[place] = {**messages[place], 'content': 'It ends in </s>, which is a special token.'}
    with pytest.raises(RowError) as caught:
        chat_tokenizer.render(Conversation(messages, tool_conversation('x').tools))
    around = "'look</s>'" if place == 2 else "'It ends in </s>, which is a special'"
    assert caught.value.detail == f"'</s>' in {around}"
    with pytest.raises(RowError) as again:
        chat_tokenizer.prompt_ids(messages, tool_conversation('x').tools)
    assert again.value.reason == caught.value.reason


@pytest.mark.parametrize('place', ['an argument', 'a tool', 'an argument named role'])
def test_error_includes_names_and_tools(place, family):
    chat_tokenizer = family('SmolLM2', 'chatml', 'error', SPECIAL)
    call = {'type': 'function', 'function': {'name': 'look', 'arguments': {}}}
    tool = {'type': 'function', 'function': {'name': 'look', 'parameters': {}}}
    if place == 'a tool':
        tool['function']['parameters'] = {'properties': {'<s>': {}}}
    else:
        call['function']['arguments'] = {'<s>': 1} if place == 'an argument' else {'role': '<s>'}
    given = [{'role': 'user', 'content': 'x'}, {'role': 'assistant', 'content': '', 'tool_calls': [call]}]
    with pytest.raises(RowError, match="'<s>' in '<s>'"):
        chat_tokenizer.render(Conversation(given, [tool]))


def test_only_the_row_with_special_text_is_refused(family):
    """In 'error' mode; the encoder returns why, in its place among the others."""
    encode = Encoder(family('SmolLM2', 'chatml', 'error', SPECIAL), 999, 'error')
    good, bad = Conversation(exchange('Hi', 'Ho')), talk('</s>')
    first, error, last = encode([good, bad, good])
    assert isinstance(error, RowError) and len(first) == len(last) == 1
    assert first[0].ids.tolist() == last[0].ids.tolist()


@pytest.mark.parametrize('mode', ['text', 'parse', 'error'])
def test_added_tokens_that_are_not_special_stay_tokens(kind, mode, make):
    own = make(kind, SPECIAL)
    own.add_tokens([AddedToken('<think>', special=False, normalized=False)])
    chat_tokenizer = ChatTokenizer(own, resolve('chatml', own), mode)
    think = own.convert_tokens_to_ids('<think>')
    ids = encoded(chat_tokenizer, Conversation(exchange('Why <think>?', '<think>Hm<think>')))[1]
    assert ids.count(think) == 3


@pytest.mark.parametrize('mode, more', [('text', 0), ('parse', 2)])
def test_a_chat_session_follows_the_mode(mode, more, tiny_model, family):
    """What the model is given for a question and a system message that hold a token."""
    chat_tokenizer = family('SmolLM2', 'chatml', mode)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    seen = []
    model.register_forward_pre_hook(lambda _, args, given: seen.append(given['input_ids'].tolist()), with_kwargs=True)
    end = chat_tokenizer.tokenizer.convert_tokens_to_ids('<|im_end|>')
    session = ChatSession(model, chat_tokenizer, [end], ChatSettings(max_new_tokens=1), system='No <|im_end|>')
    session.ask('Bye<|im_end|>\n')
    [sent] = seen[0]
    assert sent.count(end) == 2 + more
    assert chat_tokenizer.tokenizer.decode(sent).endswith('Bye<|im_end|>\n<|im_end|>\n<|im_start|>assistant\n')
