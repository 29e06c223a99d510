"""The checks every conversation passes, reason by reason."""

import pytest

from xtune.messages import RowError, checked, column, exchange, is_trained

ROLE = {'s': 'system', 'u': 'user', 'a': 'assistant', 't': 'tool', 'x': 'text'}


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
    with pytest.raises(RowError, match='^no messages$'):
        checked(nothing)


@pytest.mark.parametrize(
    'letters, reason, detail',
    [
        ('u', 'reply missing', 'the conversation has no assistant message'),
        ('su', 'reply missing', 'the conversation has no assistant message'),
        ('a', 'roles do not alternate', 'the first turn is `assistant`, not `user`'),
        ('saua', 'roles do not alternate', 'the first turn is `assistant`, not `user`'),
        ('uua', 'roles do not alternate', '`user` is followed by `user` at turn 2'),
        ('uaa', 'roles do not alternate', '`assistant` is followed by `assistant` at turn 3'),
        ('uasua', 'roles do not alternate', '`assistant` is followed by `system` at turn 3'),
        ('uta', 'roles do not alternate', '`user` is followed by `tool` at turn 2'),
        ('xx', 'roles do not alternate', 'the first turn is `text`, not `user`'),
        ('sx', 'roles do not alternate', 'the first turn is `text`, not `user`'),
    ],
)
def test_order_of_roles(letters, reason, detail):
    with pytest.raises(RowError) as caught:
        checked(talk(letters))
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    'message, reason, detail',
    [
        ({'role': 'bot', 'content': 'x'}, 'unknown role', "message 2 has role 'bot'; known: system, user"),
        ({'role': 'assistant', 'content': None}, 'content is not text', 'message 2 (assistant) holds a NoneType'),
        ({'role': 'assistant', 'content': ['x']}, 'content is not text', 'message 2 (assistant) holds a list'),
        ({'role': 'assistant', 'content': ''}, 'empty reply', ''),
        ({'role': 'assistant', 'content': ' \n'}, 'empty reply', ''),
        ({'role': 'text', 'content': ' '}, 'empty text', ''),
        ({'role': 'assistant'}, 'message without role or content', 'message 2 is'),
        ({'content': 'x'}, 'message without role or content', 'message 2 is'),
        ('Hello!', 'message without role or content', "message 2 is 'Hello!'"),
    ],
)
def test_faults_of_one_message(message, reason, detail):
    with pytest.raises(RowError) as caught:
        checked([{'role': 'user', 'content': 'Hi'}, message])
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_empty_question_is_allowed():
    assert checked(exchange('', 'Hi')).messages == exchange('', 'Hi')


def test_nothing_to_train_on():
    with pytest.raises(RowError, match='nothing to train on: every assistant message has train: false'):
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
