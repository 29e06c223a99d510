"""Reasoning in rows: where it is, how conversations are split to train it, what is refused or stays text."""

import copy

import pytest
from transformers import AddedToken

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import Encoder
from xtune.data.encode_rows import encode_rows
from xtune.data.overlong import DROPPED as DROPPED_FOR_LENGTH
from xtune.data.reasoning import DROPPED, SPLIT, TAG_IN_RESPONSE
from xtune.data.sources import Row
from xtune.messages import Conversation, RowError, exchange
from xtune.templates import THINKING
from xtune.templates.resolve import resolve

EMPTY = '<think>\n\n</think>\n\n'
CALL = {'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 2}}}
KNOW = ('qwen3', 'qwen3_5', 'nemotron3', 'deepseek_v3_1', 'deepseek_r1', 'gpt_oss')
each_template = pytest.mark.parametrize('name', (*KNOW, 'lfm2_5', *THINKING))


def thinking(question, thought, reply, **more):
    return [
        {'role': 'user', 'content': question},
        {'role': 'assistant', 'content': f'<think>\n{thought}\n</think>\n\n{reply}', **more},
    ]


A = thinking('Hi', 'A greeting.', 'Hello!')
B = thinking('2+2?', 'Two and two.', 'It is 4.')
PLAIN = exchange('Thanks', 'Welcome.')


@pytest.fixture(scope='module')
def encoder(tokenizer):
    """Return a function that gives an encoder."""
    own = copy.deepcopy(tokenizer)
    own.bos_token = own.eos_token

    def _encoder(name='qwen3', max_length=4096, overlong='error', train_on='all_replies', special=()):
        mine = own
        if special:
            mine = copy.deepcopy(own)
            mine.add_tokens([AddedToken(t, special=True, normalized=False) for t in special], special_tokens=True)
        return Encoder(ChatTokenizer(mine, resolve(name, mine)), max_length, overlong, train_on)

    return _encoder


def trained(encoder, messages):
    """Return what stands before each trained reply and the reply, sample by sample."""
    [made] = encoder([Conversation(messages)])
    if isinstance(made, Exception):
        raise made
    decode = encoder.chat_tokenizer.tokenizer.decode
    return [[(decode(s.ids[:start]), decode(s.ids[start:end])) for start, end in s.spans] for s in made]


def replies(encoder, messages):
    return [[reply for _, reply in sample] for sample in trained(encoder, messages)]


@each_template
def test_every_reasoning_is_trained_once_after_its_prompt(name, encoder):
    own = encoder(name)
    messages = A + PLAIN + B + PLAIN
    made = trained(own, messages)
    assert [len(sample) for sample in made] == [1, 2, 1]
    assert ['A greeting.' in made[0][0][1], 'Two and two.' in made[1][1][1]] == [True, True]
    template, told = own.chat_tokenizer.template, iter((1, 3, 5, 7))
    for before, _ in (pair for sample in made for pair in sample):
        history = messages[: next(told)]
        ways = {template.prompt(history), template.prompt(history, enable_thinking=True)}
        assert before in ways


def test_a_conversation_with_one_reasoning_at_its_end_is_not_split(encoder):
    own = encoder()
    assert replies(own, PLAIN + B) == [['Welcome.<|im_end|>', '<think>\nTwo and two.\n</think>\n\nIt is 4.<|im_end|>']]
    assert not own.remarks


def test_reasonings_of_one_exchange_are_not_split(encoder):
    asked = {'role': 'assistant', 'content': '', 'reasoning_content': 'Ask.', 'tool_calls': [CALL]}
    made = replies(encoder(), [B[0], asked, {'role': 'tool', 'content': '4'}, B[1], *A])
    assert [len(sample) for sample in made] == [2, 1]
    assert made[0][0].startswith('<think>\nAsk.') and made[0][1].startswith('<think>\nTwo and two.')


def test_untrained_messages_get_no_sample(encoder):
    silent = thinking('Hi', 'A greeting.', 'Hello!', train=False)
    own = encoder()
    assert len(trained(own, silent + B)) == 1 and own.unused[0] == [(DROPPED, "'A greeting.'")]
    last = encoder(train_on='last_reply')
    assert replies(last, A + B) == [['<think>\nTwo and two.\n</think>\n\nIt is 4.<|im_end|>']]
    assert last.unused[0] == [(DROPPED, "'A greeting.'")] and not last.remarks


def test_split_rows_are_counted(encoder):
    rows = [Row('file', n, {'m': messages}) for n, messages in enumerate((A + B, PLAIN, A + B), 1)]
    _, origins, report = encode_rows(rows, lambda row: Conversation(row['m']), encoder())
    assert [row.number for row in origins] == [1, 1, 2, 3, 3] and report.samples == 5
    assert report.remarks == {SPLIT: 2} and not report.length_changes


def test_a_conversation_is_not_split_for_a_template_that_keeps_reasoning(encoder, tokenizer, tmp_path):
    path = tmp_path / 'keeps.jinja'
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ '[' + m.reasoning_content + ']' if m.reasoning_content else '' }}{{ m.content }}<|im_end|>"
        '{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n'
        '{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
    )
    assert replies(encoder(str(path)), A + B) == [
        ['[\nA greeting.\n]Hello!<|im_end|>', '[\nTwo and two.\n]It is 4.<|im_end|>']
    ]


def test_tags_that_are_special_tokens(encoder):
    own = encoder('qwen3_thinking', special=('<think>', '</think>'))
    [[(_, reply)], _] = trained(own, A + B)
    assert reply == '<think>\nA greeting.\n</think>\n\nHello!<|im_end|>'
    tokenizer = own.chat_tokenizer.tokenizer
    [made] = own([Conversation(A)])
    assert tokenizer.convert_tokens_to_ids('<think>') in made[0].ids
    history = [*A, PLAIN[0]]
    assert tokenizer.decode(own.chat_tokenizer.prompt_ids(history)) == own.chat_tokenizer.template.prompt(history)


ODD = [
    'Let me see. <think>2+2=4</think> It is 4.',
    'Tags: `<think>` and `</think>`.',
    'The tag </think> ends a thought.',
    'It ends with `</think>`',
    '```\n<think>\nx\n</think>\n```',
    'It is <think> 4.',
    'a</think>b<think>c',
]


@pytest.mark.parametrize('text', ODD)
@each_template
def test_tags_inside_a_response_stay_text(text, name, encoder):
    own = encoder(name)
    [[(_, reply)]] = trained(own, exchange('2+2?', text))
    assert text in reply and own.remarks == {0: [TAG_IN_RESPONSE]}
    # Other programs give the text to the exported template.
    assert text in own.chat_tokenizer.template.prompt([*exchange('2+2?', text), PLAIN[0]])


@pytest.mark.parametrize(
    ('text', 'thought', 'rest'),
    [
        ('<think>a</think>b', 'a', 'b'),
        (' <think>a</think>\n\nb</think>c', 'a', 'b</think>c'),
        ('<think>a <think> b</think>c', 'a <think> b', 'c'),
        ('a\nb\n</think>\n\nc', 'a\nb', 'c'),
        ('a.</think>\nc', 'a.', 'c'),
        ('</think>\n\nc', '', 'c'),
        ('<think>\n</think>c', '', 'c'),
    ],
)
@each_template
def test_reasoning_in_tags_and_in_a_field_are_the_same(text, thought, rest, name, encoder):
    own = encoder(name)
    field = [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': rest, 'reasoning_content': thought}]
    written = exchange('Hi', text)
    if name != 'lfm2_5':  # which writes tags of the last reply as they are
        assert trained(own, written) == trained(own, field)
    [[(_, reply)]] = trained(own, written)
    assert thought in reply and rest in reply
    assert trained(own, written + PLAIN)[-1] == trained(own, field + PLAIN)[-1]
    prompt = own.chat_tokenizer.template.prompt
    assert prompt([*written, PLAIN[0]]) == prompt([*field, PLAIN[0]])


INVALID = [
    {'content': '<think>2+2=4. I stop here'},
    {'content': '\n<think>a<think>'},
    {'content': '<think>a</think>\n'},
    {'content': 'a\n</think>'},
    {'content': '<think>a</think>b', 'reasoning_content': 'c'},
    {'content': 'b', 'reasoning_content': 'c</think>d'},
]


def test_invalid_reasoning_makes_a_bad_row(encoder, golden):
    messages = {}
    for reply in INVALID:
        with pytest.raises(RowError) as caught:
            trained(encoder(), [PLAIN[0], {'role': 'assistant', **reply}])
        messages[str(reply)] = caught.value
    golden('data.rows_reasoning', messages)


def test_unclosed_reasoning_is_refused_with_any_template(encoder):
    with pytest.raises(RowError, match='message 2.*<think>'):
        trained(encoder('chatml'), exchange('Hi', '<think>2+2=4. I stop'))
    assert replies(encoder('chatml'), exchange('Hi', ODD[0]) + A) == [
        [f'{ODD[0]}<|im_end|>', f'{A[1]["content"]}<|im_end|>']
    ]


@pytest.mark.parametrize(
    'reply',
    [
        {'content': 'b', 'thinking': 'a'},
        {'content': 'b', 'reasoning_content': '<think>a</think>'},
        {'content': '<think>a</think>b', 'reasoning_content': ' a\n'},
        {'content': '<think></think>b', 'reasoning_content': 'a'},
    ],
)
def test_the_same_reasoning_in_tags_and_field(reply, encoder):
    made = replies(encoder(), [PLAIN[0], {'role': 'assistant', **reply}])
    assert made == [['<think>\na\n</think>\n\nb<|im_end|>']]


def test_a_template_that_drops_reasoning_is_refused(encoder, tmp_path):
    path = tmp_path / 'loses.jinja'
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content.split('</think>')[-1] }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>"
        '{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
    )
    with pytest.raises(RowError, match="message 2, '.nA greeting"):
        trained(encoder(str(path)), A)
    silent = [A[0], {**A[1], 'train': False}]
    assert replies(encoder(str(path)), silent + PLAIN) == [['Welcome.<|im_end|>']]


@pytest.mark.parametrize('overlong', ['truncate', 'split', 'drop'])
def test_parts_that_are_too_long_are_dropped_and_the_row_is_counted_once(overlong, encoder):
    short, long = A + PLAIN, A + thinking('Tell me', 'Hm. ' * 40, 'No.') + B
    limit = len(encoder()([Conversation(short)])[0][0].ids) + 40
    own = encoder(max_length=limit, overlong=overlong)
    [made] = own([Conversation(long)])
    assert made and all(len(sample.ids) <= limit for sample in made)
    assert max(own.length_changes.values()) == 1 and DROPPED_FOR_LENGTH not in own.length_changes
    texts = [own.chat_tokenizer.tokenizer.decode(sample.ids) for sample in made]
    assert any('A greeting.' in text for text in texts)
    [error] = encoder(max_length=6, overlong='truncate')([Conversation(long)])
    assert isinstance(error, RowError)
