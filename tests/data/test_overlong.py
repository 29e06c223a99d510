"""Samples of more than max_length tokens: what is kept, that turns stay complete, and that all changes are counted."""

import json

import numpy as np
import pytest

from xtune.config.sections import Source
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import Encoder
from xtune.data.overlong import DROPPED, END_CUT, EXCHANGE_DROPPED, PROMPT_TOO_LONG, RESPONSE_CUT, SPLIT, UNTRAINED
from xtune.data.prepare import prepare
from xtune.errors import DataError
from xtune.messages import Conversation, RowError, Tokens, checked, exchange
from xtune.templates.resolve import resolve

TOOLS = [{'type': 'function', 'function': {'name': 'weather', 'description': 'Tells it.', 'parameters': {}}}]
# A template that shows tools and what is called, in few tokens.
TOOL_TEMPLATE = (
    '{% for t in tools or [] %}TOOL {{ t.function.name }}\n{% endfor %}'
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>' }}{% generation %}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} {% endfor %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)


@pytest.fixture
def make(tokenizer, tmp_path):
    """Return a function that makes an encoder of overlong mode, length and template."""

    def make(overlong, max_length, template='chatml', train_on='all_replies'):
        if template == 'tools':
            path = tmp_path / 'tools.jinja'
            path.write_text(TOOL_TEMPLATE)
            template = str(path)
        return Encoder(ChatTokenizer(tokenizer, resolve(template, tokenizer)), max_length, overlong, train_on)

    return make


def one(encoder, given):
    """Encode one conversation; raise why it cannot be used."""
    encoder.length_changes.clear()
    [result] = encoder([checked(given)])
    if isinstance(result, Exception):
        raise result
    return result


def length_of(make, given, **options):
    [sample] = one(make('error', 100_000, **options), given)
    return len(sample.ids)


def trained(encoder, samples):
    decode = encoder.chat_tokenizer.tokenizer.decode
    return [[decode(sample.ids[start:end]) for start, end in sample.spans] for sample in samples]


def talk(*replies, untrained=(), system=None):
    """A conversation with these replies; those whose numbers are in `untrained` say train: false."""
    messages = [m for i, r in enumerate(replies) for m in exchange(f'Question {i}?', r, None if i else system)]
    answers = [m for m in messages if m['role'] == 'assistant']
    for i in untrained:
        answers[i]['train'] = False
    return messages


LONG = [f'Reply {i}:' + f' word{i}' * 10 for i in range(6)]
END = '<|im_end|>'


def test_split_keeps_each_trained_reply_exactly_once(make):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        replies = [f'Reply {i}:' + ' word' * int(rng.integers(1, 50)) for i in range(int(rng.integers(2, 9)))]
        untrained = [i for i in range(len(replies) - 1) if rng.random() < 0.3]
        given = talk(*replies, untrained=untrained, system='Be brief.' if seed % 2 else None)
        encoder = make('split', 80)
        samples = one(encoder, given)
        assert max(len(sample.ids) for sample in samples) <= 80
        wanted = [reply + END for i, reply in enumerate(replies) if i not in untrained]
        assert sum(trained(encoder, samples), []) == wanted


@pytest.mark.parametrize('max_length', [40, 60, 100])
def test_split_counts_dropped_parts_without_trained_replies(make, max_length):
    encoder = make('split', max_length)
    samples = one(encoder, talk(*LONG, untrained=[0, 1, 4]))
    assert sum(trained(encoder, samples), []) == [LONG[i] + END for i in (2, 3, 5)]
    parts = len(samples) + encoder.length_changes[UNTRAINED]
    assert encoder.length_changes[SPLIT] == 1 and parts == {40: 6, 60: 6, 100: 3}[max_length]


def test_split_with_last_reply_trains_no_other_and_counts_dropped_parts(make):
    encoder = make('split', 60, train_on='last_reply')
    samples = one(encoder, talk(*LONG))
    assert trained(encoder, samples) == [[LONG[5] + END]]
    assert dict(encoder.length_changes) == {UNTRAINED: 5}
    with pytest.raises(RowError, match='train: false'):
        one(encoder, talk(*LONG, untrained=[5]))


def test_truncate_with_last_reply(make):
    whole = length_of(make, talk(*LONG))
    encoder = make('truncate', whole - 5, train_on='last_reply')
    [[reply]] = trained(encoder, one(encoder, talk(*LONG)))
    assert reply.startswith('Reply 5: word5') and reply.endswith(' word5' + END) and len(reply) < len(LONG[5] + END)
    assert dict(encoder.length_changes) == {RESPONSE_CUT: 1}
    encoder = make('truncate', whole // 2, train_on='last_reply')
    with pytest.raises(RowError, match=rf'{PROMPT_TOO_LONG}: \d+ tokens'):
        one(encoder, talk(*LONG))
    assert not encoder.length_changes


@pytest.mark.parametrize('train_on', ['all_replies', 'last_reply'])
def test_drop_and_error_do_not_depend_on_what_is_trained(make, train_on):
    given = talk(*LONG, untrained=[0])
    encoder = make('drop', 60, train_on=train_on)
    assert one(encoder, given) == [] and dict(encoder.length_changes) == {DROPPED: 1}
    with pytest.raises(DataError, match='max_length=60'):
        one(make('error', 60, train_on=train_on), given)


def test_a_sample_of_exactly_max_length_is_untouched(make):
    whole = length_of(make, talk(*LONG))
    for overlong in ('truncate', 'split', 'drop', 'error'):
        encoder = make(overlong, whole)
        [sample] = one(encoder, talk(*LONG))
        assert len(sample.ids) == whole and not encoder.length_changes


def calls(question, answer):
    """An exchange in which a tool is called."""
    call = {'type': 'function', 'function': {'name': 'weather', 'arguments': {}}}
    return [
        {'role': 'user', 'content': question},
        {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        {'role': 'tool', 'content': 'Sunny.'},
        {'role': 'assistant', 'content': answer},
    ]


def test_split_keeps_tools_in_every_part_and_calls_with_their_results(make):
    messages = [m for i in range(5) for m in calls(f'Town {i}?', f'Sunny in {i}.')]
    given = Conversation([{'role': 'system', 'content': 'Brief.'}, *messages], TOOLS)
    pair = [[f'CALL weather {END}', f'Sunny in {i}.{END}'] for i in range(5)]
    for max_length in range(40, 100, 3):
        encoder = make('split', max_length, 'tools')
        samples = one(encoder, given)
        texts = [encoder.chat_tokenizer.tokenizer.decode(sample.ids) for sample in samples]
        assert all(text.startswith('TOOL weather\n<|im_start|>system\nBrief.') for text in texts)
        parts = trained(encoder, samples)
        assert sum(parts, []) == sum(pair, []) and all(len(part) % 2 == 0 for part in parts)
        assert max_length > 40 or parts == pair
        assert max(len(sample.ids) for sample in samples) <= max_length and dict(encoder.length_changes) == {SPLIT: 1}


def test_split_drops_and_counts_exchanges_that_do_not_fit(make):
    given = [*talk('one'), *exchange('long ' * 90, 'two'), *talk('three', LONG[3] * 5)]
    encoder = make('split', 60)
    samples = one(encoder, given)
    first, second, third = trained(encoder, samples)
    assert (first, second) == (['one' + END], ['three' + END])
    assert third[0].startswith(LONG[3]) and third[0].endswith(END) and len(samples[-1].ids) == 60
    assert dict(encoder.length_changes) == {
        SPLIT: 1,
        RESPONSE_CUT: 1,
        EXCHANGE_DROPPED + PROMPT_TOO_LONG: 1,
    }


def test_a_row_of_which_nothing_fits_is_bad_and_counts_no_changes(make):
    encoder = make('split', 60)
    with pytest.raises(RowError, match=PROMPT_TOO_LONG):
        one(encoder, [*exchange('long ' * 90, 'two'), *exchange('longer ' * 90, 'three')])
    assert not +encoder.length_changes


def tokens(trained_indices, length=100):
    """A row of given ids; the tokens `trained_indices` get a loss."""
    return Tokens(list(range(100, 100 + length)), [i in trained_indices for i in range(length)])


def spans_of(samples):
    """(id of the first token, spans) of each sample."""
    return [(int(sample.ids[0]), sample.spans) for sample in samples]


def test_token_ids_are_split_without_loss(make):
    encoder = make('split', 30)
    samples = one(encoder, tokens({*range(5, 12), *range(25, 65), 99}))
    assert spans_of(samples) == [(100, [(5, 12), (25, 30)]), (130, [(0, 30)]), (160, [(0, 5)]), (190, [(9, 10)])]
    assert np.concatenate([sample.ids for sample in samples]).tolist() == list(range(100, 200))
    assert dict(encoder.length_changes) == {SPLIT: 1}


def test_untrained_parts_of_token_ids_are_dropped_and_counted(make):
    encoder = make('split', 30)
    assert spans_of(one(encoder, tokens(range(70, 80)))) == [(160, [(10, 20)])]
    assert dict(encoder.length_changes) == {UNTRAINED: 3}


def test_token_ids_are_truncated_at_the_end(make):
    encoder = make('truncate', 30)
    assert spans_of(one(encoder, tokens(range(20, 80)))) == [(100, [(20, 30)])]
    assert dict(encoder.length_changes) == {END_CUT: 1}
    for trained_indices in ({50}, {0, 50}, {30}):  # the first token is predicted by none
        encoder = make('truncate', 30)
        with pytest.raises(RowError, match=rf'{PROMPT_TOO_LONG}: \d+ tokens'):
            one(encoder, tokens(trained_indices))
        assert not encoder.length_changes


def test_token_ids_are_dropped_refused_or_fit(make):
    encoder = make('drop', 30)
    assert one(encoder, tokens({5})) == [] and dict(encoder.length_changes) == {DROPPED: 1}
    with pytest.raises(DataError, match='100 tokens.* max_length=30'):
        one(make('error', 30), tokens({5}))
    assert spans_of(one(make('error', 100), tokens({5, 6, 9}))) == [(100, [(5, 7), (9, 10)])]


@pytest.mark.parametrize('overlong', ['truncate', 'split', 'drop'])
def test_text_rows(make, overlong):
    text = [{'role': 'text', 'content': 'Anarchism is a philosophy. ' * 20}]
    whole = length_of(make, text, template='plain')
    encoder = make(overlong, 30, 'plain')
    samples = one(encoder, text)
    kept = {'truncate': 30, 'split': whole, 'drop': 0}[overlong]
    assert sum(end - start for sample in samples for start, end in sample.spans) == kept
    notes = {'truncate': RESPONSE_CUT, 'split': SPLIT}
    assert dict(encoder.length_changes) == {notes.get(overlong, DROPPED): 1}


def test_changes_of_all_rows_are_in_the_report(make, tmp_path):
    rows = [{'messages': talk(*LONG[:2])}, {'messages': talk(*LONG)}, {'messages': talk(*LONG, untrained=[0, 1])}]
    rows += [{'messages': exchange('long ' * 90, 'two')}]
    (tmp_path / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    store, report = prepare(Source(str(tmp_path / 'rows.jsonl')), make('split', 80), num_proc=1, max_bad_rows=0.5)
    assert report.length_changes == {SPLIT: 2, UNTRAINED: 1}
    assert report.bad == {PROMPT_TOO_LONG: 1} and len(store) == report.samples == 1 + 3 + 2
    assert f'1 {UNTRAINED}' in report.lines()
