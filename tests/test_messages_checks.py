"""The checks every conversation passes, reason by reason."""

import pytest
from golden import short

from xtune.messages import RowError, checked, column, exchange, is_trained

ROLE = {'s': 'system', 'u': 'user', 'a': 'assistant', 't': 'tool', 'x': 'text'}


def error_of(messages):
    """Return the error that refuses a conversation."""
    with pytest.raises(RowError) as caught:
        checked(messages)
    return caught.value


def talk(letters, **extra):
    """One message a letter: s, u, a, t, or x for text."""
    return [{'role': ROLE[letter], 'content': f'{letter}{i}', **extra} for i, letter in enumerate(letters)]


@pytest.mark.parametrize('letters', ['ua', 'sua', 'uaua', 'suata', 'uatta', 'x'])
def test_good_conversations_pass_unchanged(letters):
    assert checked(talk(letters)).messages == talk(letters)


@pytest.mark.parametrize('letters, kept', [('uau', 'ua'), ('suauau', 'suaua'), ('uat', 'ua'), ('uauu', 'ua')])
def test_what_follows_the_last_reply_is_cut(letters, kept):
    assert checked(talk(letters)).messages == talk(kept)


@pytest.mark.parametrize('nothing', [None, [], 'text', {'role': 'user'}])
def test_no_messages(nothing):
    assert not error_of(nothing).detail


@pytest.mark.parametrize('wrong', [('u', 'su'), ('a', 'saua', 'uua', 'uaa', 'uasua', 'uta', 'xx', 'sx')])
def test_order_of_roles(wrong):
    errors = [error_of(talk(letters)) for letters in wrong]
    assert len({error.reason for error in errors}) == 1


def test_messages_about_roles(golden):
    wrong = ('u', 'su', 'a', 'saua', 'uua', 'uaa', 'uasua', 'uta', 'xx', 'sx')
    golden('data.rows_roles', {', '.join(ROLE[c] for c in letters): error_of(talk(letters)) for letters in wrong})


def test_faults_of_one_message(golden):
    wrong = (
        {'role': 'bot', 'content': 'x'},
        {'role': 'assistant', 'content': None},
        {'role': 'assistant', 'content': ['x']},
        {'role': 'assistant', 'content': ''},
        {'role': 'assistant', 'content': ' \n'},
        {'role': 'text', 'content': ' '},
        {'role': 'assistant'},
        {'content': 'x'},
        'Hello!',
    )
    question = {'role': 'user', 'content': 'Hi'}
    golden('data.rows_messages', {short(message): error_of([question, message]) for message in wrong})


def test_empty_question_is_allowed():
    assert checked(exchange('', 'Hi')).messages == exchange('', 'Hi')


def test_nothing_to_train_on():
    with pytest.raises(RowError, match='train: false'):
        checked(talk('uaua', train=False))


def test_one_trained_reply_is_enough_but_it_must_come_before_the_cut():
    messages = talk('uaua')
    messages[1]['train'] = False
    assert [is_trained(m) for m in checked(messages).messages] == [False, False, False, True]


def test_row_error_shows_reason_and_detail():
    assert str(RowError('why')) == 'why'
    assert str(RowError('why', 'this')) == 'why: this'


@pytest.mark.parametrize('value, text', [('x', 'x'), (None, ''), (7, '7'), (0, '0'), ('', '')])
def test_column_gives_text(value, text):
    assert column({'a': value}, 'a') == text


@pytest.mark.parametrize(
    'row, message',
    [
        ({'b': 1, 'c': 2}, '^no column `a`: the columns are b, c$'),
        ({'a': ['x']}, '^column `a` is not text: it holds a list$'),
        ({'a': {}}, '^column `a` is not text: it holds a dict$'),
    ],
)
def test_column_that_gives_none(row, message):
    with pytest.raises(RowError, match=message):
        column(row, 'a')


def test_exchange_has_a_system_message_only_if_given():
    assert [m['role'] for m in exchange('q', 'r', 's')] == ['system', 'user', 'assistant']
    assert [m['role'] for m in exchange('q', 'r', '')] == ['user', 'assistant']
