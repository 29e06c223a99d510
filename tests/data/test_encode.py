"""Encoding: which tokens are trained, in every template, at every length."""

import copy

import numpy as np
import pytest
from tokenizers.processors import ByteLevel

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import Encoder
from xtune.data.overlong import DROPPED, PROMPT_TOO_LONG, RESPONSE_CUT, TURNS_REMOVED
from xtune.data.stop_tokens import stop_token_ids
from xtune.errors import DataError, TemplateError
from xtune.messages import Conversation, RowError, checked, exchange
from xtune.templates.resolve import resolve
from xtune.templates.template import ChatTemplate

LLAMA3 = ['<|begin_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>']
TEMPLATES = ['chatml', 'plain', 'auto', 'llama3']
REPLIES = ['Hello!', ' 你好，世界。', '4 😀👩‍👩‍👧 ok  ', 'def f():\n    return 1\n\n', '<b>Hello!</b>']


class SingleEncoder(Encoder):
    """Encodes one list of messages, and raises errors instead of returning them."""

    def __call__(self, messages):
        given = messages if isinstance(messages, Conversation) else Conversation(messages)
        [result] = super().__call__([given])
        if isinstance(result, Exception):
            raise result
        return result

    @property
    def tokenizer(self):
        return self.chat_tokenizer.tokenizer

    @property
    def template(self):
        return self.chat_tokenizer.template


class TokenizerWithoutOffsets:
    """A tokenizer without offsets."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, **options):
        return self.tokenizer(text, **options)

    def __len__(self):
        return len(self.tokenizer)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.fixture(scope='module')
def llama(tokenizer):
    """SmolLM2's tokenizer with Llama 3's special tokens."""
    own = copy.deepcopy(tokenizer)
    own.add_tokens(LLAMA3, special_tokens=True)
    own.bos_token = LLAMA3[0]
    return own


@pytest.fixture
def encoder(tokenizer, llama):
    def make(name='chatml', max_length=10_000, overlong='error', tokenizer=tokenizer):
        tokenizer = llama if name == 'llama3' else tokenizer
        return SingleEncoder(ChatTokenizer(tokenizer, resolve(name, tokenizer)), max_length, overlong)

    return make


def talk(*replies, system=None):
    return [m for i, r in enumerate(replies) for m in exchange(f'Question {i}?', r, None if i else system)]


def trained(encoder, sample):
    return [encoder.tokenizer.decode(sample.ids[start:end]) for start, end in sample.spans]


def turns_of(name, replies):
    end = '<|eot_id|>' if name == 'llama3' else '<|im_end|>'
    return [(r.strip() if name == 'llama3' else r) + end for r in replies]


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)['input_ids']


@pytest.mark.parametrize('name', TEMPLATES)
@pytest.mark.parametrize('system', [None, 'Be brief.'])
def test_exactly_each_reply_and_its_end_are_trained(encoder, name, system):
    encode = encoder(name)
    assert encode.tokenizer.pad_token_id == encode.tokenizer.eos_token_id  # the ends are trained all the same
    [sample] = encode(talk(*REPLIES, system=system))
    assert trained(encode, sample) == turns_of(name, REPLIES)
    assert {int(sample.ids[end - 1]) for _, end in sample.spans} == {stop_token_ids(encode.chat_tokenizer)[0]}


@pytest.mark.parametrize('name', ['chatml', 'plain', 'auto'])  # llama3 trims replies
@pytest.mark.parametrize('reply', ['  two spaces', '\n\ntwo lines', '\tTab', ' one'])
def test_space_before_a_reply_is_trained_and_the_prompt_is_as_at_inference(encoder, name, reply):
    encode, messages = encoder(name), talk(reply)
    [sample] = encode(messages)
    assert trained(encode, sample) == turns_of(name, [reply])
    prompt = encode.template.prompt(messages[:-1])
    assert sample.ids[: sample.spans[0][0]].tolist() == ids(encode.tokenizer, prompt)


# Not llama3 on this tokenizer: it splits a prompt's last two line ends otherwise when text follows, as at no inference.
@pytest.mark.parametrize('name', ['chatml', 'plain', 'auto'])
def test_ids_are_those_of_apply_chat_template(encoder, name):
    encode, messages = encoder(name), talk(*REPLIES, system='Be brief.')
    options = dict(chat_template=encode.template.source, tokenize=True, return_dict=False)
    assert encode(messages)[0].ids.tolist() == encode.tokenizer.apply_chat_template(messages, **options)


def test_untrained_replies_are_context_only(encoder):
    messages = talk('one', 'two', 'three')
    messages[3]['train'] = False
    encode = encoder()
    [sample] = encode(messages)
    assert trained(encode, sample) == ['one<|im_end|>', 'three<|im_end|>']
    assert sample.ids.tolist() == encode(talk('one', 'two', 'three'))[0].ids.tolist()


@pytest.mark.parametrize('name', TEMPLATES)
def test_truncation_keeps_complete_turns_or_the_stop_token_of_a_cut_reply(encoder, name):
    messages = talk(*REPLIES, system='Be brief.')
    whole = encoder(name)(messages)[0]
    stop = stop_token_ids(encoder(name).chat_tokenizer)[0]
    for length in range(whole.turns[0][0] + 2, len(whole.ids)):
        encode = encoder(name, length, 'truncate')
        [sample] = encode(messages)
        fitting = [turn for turn in whole.turns if turn[1] <= length]
        assert len(sample.ids) <= length
        assert {int(sample.ids[end - 1]) for _, end in sample.spans} == {stop}
        assert sample.turns == (fitting or [(whole.turns[0][0], length)])
        assert (sample.ids[:-1] == whole.ids[: len(sample.ids) - 1]).all()
        assert dict(encode.length_changes) == {TURNS_REMOVED if fitting else RESPONSE_CUT: 1}
    with pytest.raises(RowError, match=f'{PROMPT_TOO_LONG}: {whole.turns[0][0]} tokens'):
        encoder(name, whole.turns[0][0] + 1, 'truncate')(messages)


def test_truncation_always_leaves_trained_tokens(encoder):
    messages = talk('context ' * 9, 'trained ' * 9)
    messages[1]['train'] = False
    whole = encoder()(messages)[0]
    encode = encoder(max_length=len(whole.ids) - 5, overlong='truncate')
    [text] = trained(encode, encode(messages)[0])
    assert text.startswith('trained trained') and text.endswith('<|im_end|>')


def test_overlong_drop_and_error_and_text_without_template_plain(encoder):
    with pytest.raises(RowError, match="'plain'.*`chatml`"):
        encoder('chatml')([{'role': 'text', 'content': 'Anarchism'}])
    drop = encoder(max_length=9, overlong='drop')
    assert drop(talk('Hello!')) == [] and dict(drop.length_changes) == {DROPPED: 1}
    with pytest.raises(DataError, match=r'\d+ tokens.* max_length=9; .*overlong'):
        encoder(max_length=9, overlong='error')(talk('Hello!'))


def test_split_repeats_the_system_message_and_loses_no_exchange(encoder):
    replies = [f'{i} ' + 'word ' * 8 * (i % 3) + 'end' for i in range(9)]
    encode = encoder(max_length=70, overlong='split')
    samples = encode(talk(*replies, system='Be brief.'))
    texts = [encode.tokenizer.decode(s.ids) for s in samples]
    assert len(samples) > 2 and max(len(s.ids) for s in samples) <= 70
    assert all(text.startswith('<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n') for text in texts)
    assert sum([trained(encode, s) for s in samples], []) == [reply + '<|im_end|>' for reply in replies]
    assert [text.count('Question') for text in texts] == [len(s.spans) for s in samples]
    assert dict(encode.length_changes) == {'row split': 1}


def test_split_keeps_a_tool_call_with_its_answer_and_cuts_a_too_long_exchange(encoder):
    call = [{'role': 'assistant', 'content': 'call'}, {'role': 'tool', 'content': 'x ' * 20}]
    messages = talk('one', 'two', 'long ' * 90)
    messages[3:3] = call
    encode = encoder(max_length=60, overlong='split')
    first, second, third = (trained(encode, s) for s in encode(checked(messages)))
    assert (first, second) == (['one<|im_end|>'], ['call<|im_end|>', 'two<|im_end|>'])
    assert third[0].startswith('long long') and third[0].endswith('<|im_end|>')


def test_split_drops_only_an_exchange_whose_question_is_too_long(encoder):
    encode = encoder(max_length=60, overlong='split')
    samples = encode(talk('one') + exchange('long ' * 90, 'two') + talk('three'))
    assert sum([trained(encode, s) for s in samples], []) == ['one<|im_end|>', 'three<|im_end|>']


@pytest.mark.parametrize('overlong, pieces', [('split', 5), ('truncate', 1)])
def test_text_is_split_without_loss_or_truncated(encoder, overlong, pieces):
    text = [{'role': 'text', 'content': 'Anarchism 是 a philosophy 😀. ' * 10}]
    [whole] = encoder('plain')(text)
    length = -(-len(whole.ids) // 5)
    encode = encoder('plain', length, overlong)
    samples = encode(text)
    assert len(samples) == pieces and all(s.spans == [(0, len(s.ids))] for s in samples)
    assert samples[-1].ids[-1] == encode.tokenizer.eos_token_id
    assert pieces == 1 or (np.concatenate([s.ids for s in samples]) == whole.ids).all()


def test_stop_token_ids(encoder, tokenizer, llama):
    assert stop_token_ids(ChatTokenizer(tokenizer, resolve('auto', tokenizer))) == [tokenizer.eos_token_id]
    eot = llama.convert_tokens_to_ids('<|eot_id|>')
    assert stop_token_ids(ChatTokenizer(llama, resolve('llama3', llama))) == [eot, tokenizer.eos_token_id]
    with pytest.raises(TemplateError, match=r"`llama3` .*'<\|eot_id\|>'.* \d+ tokens"):
        stop_token_ids(ChatTokenizer(tokenizer, resolve('llama3', tokenizer)))


@pytest.mark.parametrize('prompt, reply', [('Q:', '"Hi"'), ('Q: ', 'Hi'), ('Q:\n', '\n\nHi')])
@pytest.mark.parametrize('kind', ['fast', 'slow', 'trimmed offsets'])
def test_a_token_across_the_start_of_a_reply_is_split(tokenizer, kind, prompt, reply):
    own = copy.deepcopy(tokenizer)
    if kind == 'trimmed offsets':  # as GPT-2 does: the space before a word counts to no token
        own.backend_tokenizer.post_processor = ByteLevel(trim_offsets=True)
    source = "{{ prompt }}{% generation %}{{ messages[0].content + '<|im_end|>' }}{% endgeneration %}"
    template = ChatTemplate('mine', source, {'prompt': prompt}, ())
    chat_tokenizer = ChatTokenizer(TokenizerWithoutOffsets(own) if kind == 'slow' else own, template)
    [sample] = SingleEncoder(chat_tokenizer, 99, 'error')(exchange('', reply)[1:])
    assert sample.ids.tolist() == ids(own, prompt) + ids(own, reply + '<|im_end|>')
    assert sample.ids.tolist() != ids(own, prompt + reply + '<|im_end|>')  # else this proves nothing
    assert sample.spans == [(len(ids(own, prompt)), len(sample.ids))]
