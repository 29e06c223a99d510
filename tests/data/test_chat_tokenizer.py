"""Training uses the same token ids as inference, for every tokenizer type and every template."""

import copy

import pytest

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.stop_tokens import stop_token_ids
from xtune.messages import Conversation, exchange
from xtune.templates.resolve import resolve
from xtune.templates.template import ChatTemplate

# Beginnings and ends that tokenizers like to merge with what stands beside them.
TEXTS = [
    *(' 4', '4', '\n\nx', '你好', '😀', 'a  b ', 'def f():\n    return 1\n', 'Hello.'),
    *("'s fine", '"Hi"', '12', '\t\tx', '- a', '  \n y\n\n'),
]
# One of each way in which a reply meets its prompt and its end.
NAMES = [
    *('baichuan2_chat', 'chatglm3', 'chatml', 'code_llama_70b_chat', 'deepseek_coder', 'default', 'llama2_chat'),
    *('llama3_chat', 'minicpm', 'mistral', 'mistral_v3', 'moss_sft', 'plain', 'vicuna', 'zephyr'),
]
NO_BOS = ('baichuan2_chat', 'chatglm3', 'chatml')
ONLY_IF_ADDED = ('default', 'moss_sft', 'plain')


def conversations():
    """Conversations of three exchanges in which each text is a question, and each a reply after each of two others."""
    half = len(TEXTS) // 2
    for i, (one, two) in enumerate(zip(TEXTS[:half], TEXTS[half:], strict=True)):
        system = [{'role': 'system', 'content': f'Be brief.{one}'}] if i % 2 else []
        yield Conversation([*system, *exchange('Why?', one), *exchange(one, two), *exchange(two, one)])


def replies(conversation):
    return [i for i, message in enumerate(conversation.messages) if message['role'] == 'assistant']


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)['input_ids']


@pytest.fixture(scope='session', params=NAMES)
def case(request, kind, family):
    """A kind with a template: its chat_tokenizer, the conversations, their texts and tokens."""
    chat_tokenizer, given = family(kind, request.param), list(conversations())
    texts = [chat_tokenizer.render(conversation) for conversation in given]
    return chat_tokenizer, given, texts, chat_tokenizer.tokenize(texts)


def test_the_ids_before_each_reply_are_those_of_the_prompt(case):
    chat_tokenizer, given, _, tokenized = case
    for conversation, (row, turns) in zip(given, tokenized, strict=True):
        prompts = [chat_tokenizer.prompt_ids(conversation.messages[:i]) for i in replies(conversation)]
        assert [row[:start] for start, _ in turns] == prompts


def test_the_first_prompt_is_encoded_as_plain_text(case):
    chat_tokenizer, given, _, _ = case
    for conversation in given:
        first = conversation.messages[: replies(conversation)[0]]
        assert chat_tokenizer.prompt_ids(first) == ids(chat_tokenizer.tokenizer, chat_tokenizer.template.prompt(first))


def test_the_trained_ids_are_the_reply_and_its_stop_token(case, kind, written, spaced):
    chat_tokenizer, given, texts, tokenized = case
    tokenizer, stops, say = chat_tokenizer.tokenizer, stop_token_ids(chat_tokenizer), written(chat_tokenizer.tokenizer)
    added = tuple(tokenizer.get_added_vocab())
    for conversation, rendered, (row, turns) in zip(given, texts, tokenized, strict=True):
        assert len(turns) == 3
        for index, span, (start, end) in zip(replies(conversation), rendered.spans, turns, strict=True):
            reply = rendered.text[slice(*span)]
            assert conversation.messages[index]['content'].strip() in reply
            # Fast tokenizers take a space that is there for the one they would write.
            space = spaced(kind) and rendered.text[: span[0]].endswith(added)
            space = space and not (tokenizer.is_fast and reply.startswith(' '))
            assert say(row[start:end]) == ' ' * space + reply
            assert row[end - 1] in stops and not set(row[start : end - 1]) & set(stops)


def test_all_ids_decode_to_the_rendered_text(case, kind, written, spaced):
    """A space may stand at the start and, where the tokenizer writes it, behind special tokens."""
    chat_tokenizer, _, texts, tokenized = case
    say = written(chat_tokenizer.tokenizer)
    for rendered, (row, _) in zip(texts, tokenized, strict=True):
        text, wanted = say(row), rendered.text
        if spaced(kind):
            assert text.replace(' ', '') == wanted.replace(' ', '')
        else:
            assert text in (wanted, ' ' + wanted)


def test_bos_occurs_once_if_the_template_writes_it(case):
    chat_tokenizer, _, _, tokenized = case
    tokenizer, name = chat_tokenizer.tokenizer, chat_tokenizer.template.name
    bos, alone = tokenizer.bos_token_id, tokenizer('a')['input_ids']
    count = 3 if name == 'llama2_chat' else 1  # Llama 2 has one before each question
    if bos is None or name in NO_BOS or name in ONLY_IF_ADDED and (alone[0] != bos or len(alone) == 1):
        count = 0
    assert {row.count(bos) for row, _ in tokenized} == {count}
    assert not count or {row[0] for row, _ in tokenized} == {bos}


def test_a_batch_is_tokenized_like_single_conversations(case):
    chat_tokenizer, _, texts, tokenized = case
    assert [one for text in texts for one in chat_tokenizer.tokenize([text])] == tokenized
    assert chat_tokenizer.tokenize(texts[::-1]) == tokenized[::-1]


def test_some_tokenizers_add_bos_and_some_do_not(make):
    """Else the test of bos proves little."""
    added = {kind: make(kind)('a')['input_ids'][0] == make(kind).bos_token_id for kind in ('Llama 2', 'space first')}
    assert added == {'Llama 2': True, 'space first': False}


@pytest.mark.parametrize('kind, alike', [('SmolLM2', False), ('Llama 3', True)])
def test_blank_lines_before_a_reply_are_tokenized_as_in_the_prompt(kind, alike, family):
    """Two line ends are one token at the end of a prompt; GPT-2's splits make two of them before a word."""
    chat_tokenizer = family(kind, 'llama3_chat')
    rendered = chat_tokenizer.render(Conversation(exchange('Why?', 'So.')))
    [(row, [(start, _)])] = chat_tokenizer.tokenize([rendered])
    assert chat_tokenizer.tokenizer.decode(row[start - 1]) == '\n\n'
    assert (ids(chat_tokenizer.tokenizer, rendered.text) == row) is alike


@pytest.mark.parametrize('name', ['default', 'chatml', 'mistral'])
def test_earlier_replies_are_tokenized_separately_from_their_prompts(name, family):
    """As they were when the model wrote them: `:"` would be one token."""
    chat_tokenizer = family('SmolLM2', name)
    given = [*exchange('Why?', '"\n\n"'), {'role': 'user', 'content': 'So?'}]
    prompt = chat_tokenizer.template.prompt(given)
    start = len(chat_tokenizer.template.prompt(given[:1]))
    apart = ids(chat_tokenizer.tokenizer, prompt[:start]) + ids(chat_tokenizer.tokenizer, prompt[start:])
    assert chat_tokenizer.prompt_ids(given) == apart
    assert name == 'chatml' or apart != ids(chat_tokenizer.tokenizer, prompt)


def test_a_template_that_cannot_be_trained_still_renders_prompts(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content | upper }}\n{% endfor %}assistant:"
    chat_tokenizer = ChatTokenizer(own, resolve('auto', own, for_training=False))
    prompt = 'user: A\nassistant: B\nuser: C\nassistant:'
    assert chat_tokenizer.prompt_ids([*exchange('a', 'b'), {'role': 'user', 'content': 'c'}]) == ids(own, prompt)


def test_a_prompt_that_ends_in_special_text_does_not_affect_later_calls(make):
    """A fast tokenizer keeps the setting of the last call."""
    own = make('Llama 2')
    source = '{% for m in messages %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% endfor %}'
    chat_tokenizer = ChatTokenizer(own, ChatTemplate('mine', source, {}, ()))
    texts = [chat_tokenizer.render(Conversation([{'role': 'assistant', 'content': 'Hi'}]))]
    before = chat_tokenizer.tokenize(texts)
    bare = ChatTokenizer(own, ChatTemplate('bare', '{{ messages[0].content }}', {}, ()))
    bare.prompt_ids([{'role': 'user', 'content': 'What is </s>'}])
    assert chat_tokenizer.tokenize(texts) == before
    assert before[0][0][-1] == own.eos_token_id
