"""Map functions of dialogues: turns and messages, tools and calls, preferences, rows of a wrong shape, real rows."""

import json
import re
from pathlib import Path

import pytest
from golden import short

import xtune.data.map_fns  # noqa: F401  registers the functions
from xtune.errors import ConfigError
from xtune.messages import Conversation, RowError, checked
from xtune.registry import MAP_FNS, lookup
from xtune.templates.system_prompts import SYSTEM_PROMPTS

FILES = Path(__file__).parent / 'files'
HI = [('user', 'Hi'), ('assistant', 'Hello!')]


def call(name, row, **arguments):
    return lookup(MAP_FNS, name)(row, **arguments)


def messages(name, row, **arguments):
    given = call(name, row, **arguments)
    return given.messages if isinstance(given, Conversation) else given


def mapped(name, row, **arguments):
    return [(m['role'], m['content']) for m in messages(name, row, **arguments)]


def turns(*pairs):
    return {'conversations': [{'from': who, 'value': value} for who, value in pairs]}


def talk(*pairs):
    return {'messages': [{'role': role, 'content': content} for role, content in pairs]}


def rows_of(name):
    return json.loads((FILES / name).read_text(encoding='utf-8'))


def test_oasst1_headings_stay_and_the_last_question_is_left_out():
    reply = '# One\n### Two\ntext\n### Humans: a heading\n#### Three'
    row = {'text': f'### Human: q### Assistant: {reply}### Human: and?### Assistant: no.### Human: why?'}
    assert [m['content'] for m in checked(call('oasst1', row)).messages] == ['q', reply, 'and?', 'no.']
    with pytest.raises(RowError, match='### Human:.*### Assistant:'):
        call('oasst1', {'text': 'only text'})
    with pytest.raises(RowError, match='user.*user'):
        checked(call('oasst1', {'text': '### Human: q### Human: q### Assistant: r'}))


@pytest.mark.parametrize('name', ['messages', 'conversations', 'conversation', 'dialogue'])
def test_openai_messages_may_be_in_a_column_of_another_name(name):
    assert mapped('openai', {name: talk(*HI)['messages'], 'messages_count': 2}) == HI


@pytest.mark.parametrize('key', ['train', 'loss', 'weight'])
def test_flags_decide_what_is_trained_as_a_bool_a_number_or_a_word(key):
    values = (False, 0, 0.0, 'false', 'False ', '0', True, 1, 1.0, 'true', 'TRUE', None, float('nan'))
    expected = [False] * 6 + [True] * 5 + [None] * 2
    given = [{'role': 'assistant', 'content': 'x', key: value} for value in values]
    assert [message.get('train') for message in messages('openai', {'messages': given})] == expected
    given = [{'from': 'gpt', 'value': 'x', key: value} for value in values]
    assert [message.get('train') for message in messages('sharegpt', {'conversations': given})] == expected
    for value in ('maybe', {}, []):
        with pytest.raises(RowError, match=rf'message 1 .*has {key}='):
            call('openai', {'messages': [{'role': 'assistant', 'content': 'x', key: value}]})


def test_openai_merges_questions_drops_a_greeting_and_reads_parts():
    parts = [{'type': 'text', 'text': 'Hi '}, {'type': 'text', 'text': 'you'}]
    given = [('developer', 's'), ('assistant', 'Welcome'), ('user', parts), ('user', 'there'), ('assistant', 'Hello!')]
    assert mapped('openai', talk(*given)) == [('system', 's'), ('user', 'Hi you\nthere'), HI[1]]
    assert mapped('openai', talk(*given[1:])) == [('user', 'Hi you\nthere'), HI[1]]
    assert mapped('wizardlm', turns(('gpt', 'x'), ('human', 'a'), ('human', 'b'), ('gpt', 'c'))) == [
        ('user', 'a\nb'),
        ('assistant', 'c'),
    ]


@pytest.mark.parametrize('name', ['openai', 'sharegpt', 'wizardlm'])
def test_a_system_message_in_the_middle_is_refused(name):
    pairs = [('user', 'Hi'), ('assistant', 'Hello!'), ('system', 's'), ('user', 'q'), ('assistant', 'r')]
    row = talk(*pairs) if name == 'openai' else turns(*pairs)
    with pytest.raises(RowError, match='system message.* message 3'):
        call(name, row)


def test_sharegpt_takes_a_system_column_and_drops_a_greeting():
    row = turns(('gpt', 'Welcome'), ('USER', 'Hi'), ('assistant', 'Hello!'))
    assert mapped('sharegpt', row | {'system': 's'}) == [('system', 's'), *HI]
    for system in (None, float('nan'), ' '):
        assert mapped('sharegpt', row | {'system': system}) == HI
    row = turns(('system', 'Be brief.'), *HI) | {'system': 's'}
    assert mapped('sharegpt', row) == [('system', 'Be brief.\n\ns'), *HI]


BROKEN = [
    ('openai', {'text': 'x'}),
    ('openai', {'messages': None}),
    ('openai', {'messages': 'x'}),
    ('openai', {'messages': {'role': 'user'}}),
    ('openai', {'messages': float('nan')}),
    ('openai', {'messages': [1, 2]}),
    ('openai', {'messages': [['user', 'x']]}),
    ('openai', {'messages': [{'role': 'user'}]}),
    ('openai', talk(('user', None))),
    ('openai', talk(('assistant', None))),
    ('openai', talk(('user', 7))),
    ('openai', talk(('user', {'text': 'x'}))),
    ('openai', talk(('user', [{'type': 'image_url'}]))),
    ('openai', talk(('user', [{'type': 'text', 'text': None}]))),
    ('openai', talk(('user', 'x'), ('alien', 'y'))),
    ('openai', talk((None, 'x'))),
    ('openai', talk(([], 'x'))),
    ('self_cognition', talk(('user', 'x'), ('assistant', 7))),
    ('sharegpt', turns(('human', 'x'), ('alien', 'y'))),
    ('sharegpt', {'conversations': [{'role': 'user'}]}),
    ('sharegpt', {'conversations': [1]}),
    ('sharegpt', {'conversations': '{}'}),
    ('sharegpt', {'conversations': {'from': 'human'}}),
    ('sharegpt', {'chat': [], 'id': None}),
    ('sharegpt', turns(('human', 'x'), ('gpt', None))),
    ('sharegpt', turns(('human', [7]))),
    ('sharegpt', turns(*HI) | {'system': ['s']}),
    ('sharegpt', turns(*HI) | {'tools': '[{'}),
    ('sharegpt', turns(*HI) | {'tools': '[' * 100_000}),
    ('sharegpt', turns(*HI) | {'tools': '{}'}),
    ('sharegpt', turns(*HI) | {'tools': 7}),
    ('sharegpt', turns(*HI) | {'tools': ['add']}),
    ('sharegpt', turns(*HI) | {'tools': [{'name': 'a'}, {'function': 'x'}]}),
    ('sharegpt', turns(*HI) | {'tools': [{'name': 'a', 'parameters': [1]}]}),
    ('sharegpt', turns(('human', 'x'), ('function_call', '{'))),
    ('sharegpt', turns(('human', 'x'), ('function_call', '7'))),
    ('sharegpt', turns(('human', 'x'), ('function_call', None))),
    ('sharegpt', turns(('human', 'x'), ('function_call', '[{"arguments": {}}]'))),
    ('sharegpt', turns(('human', 'x'), ('function_call', '{"name": 7}'))),
    ('sharegpt', turns(('human', 'x'), ('function_call', {'name': 'a', 'arguments': [1]}))),
]


def test_rows_of_a_wrong_shape_say_where(golden):
    texts = {}
    for name, row in BROKEN:
        with pytest.raises(RowError) as caught:
            call(name, row)
        assert "'" not in caught.value.reason and not re.search(r'\d', caught.value.reason)
        texts[f'{name}: {short(row)}'] = caught.value
    golden('data.rows_dialogues', texts)


def test_all_tool_formats_are_normalized():
    bare = {'name': 'add', 'description': 'Add.', 'parameters': {'type': 'object', 'properties': {'a': {}}}, 'x': 1}
    whole = {'type': 'function', 'function': {key: bare[key] for key in ('name', 'description', 'parameters', 'x')}}
    for tools in ([bare], [whole], json.dumps([bare]), [bare | {'parameters': json.dumps(bare['parameters'])}]):
        for name, row in (('openai', talk(*HI)), ('sharegpt', turns(*HI)), ('wizardlm', turns(*HI))):
            assert call(name, row | {'tools': tools}).tools == [whole]
    assert call('openai', talk(*HI) | {'functions': [bare]}).tools == [whole]
    assert call('self_cognition', talk(*HI) | {'tools': [bare]}).tools == [whole]
    least = {'name': 'add', 'parameters': {'type': 'object', 'properties': {}}}
    for tool in ({'name': 'add'}, {'name': 'add', 'description': None, 'parameters': None}):
        assert call('openai', talk(*HI) | {'tools': [tool]}).tools == [{'type': 'function', 'function': least}]
    for none in (None, '', '[]', [], float('nan')):
        assert call('sharegpt', turns(*HI) | {'tools': none}) == Conversation(messages('sharegpt', turns(*HI)), None)


def test_all_call_formats_are_normalized_and_tool_names_kept():
    wanted = {'type': 'function', 'function': {'name': 'add', 'arguments': {'数': 1}}}
    asked = {'role': 'user', 'content': 'q'}
    answer = {'role': 'tool', 'content': '3', 'name': 'add', 'tool_call_id': '1', 'x': 1}
    for function in (wanted['function'], {'name': 'add', 'arguments': '{"数": 1}'}):
        for key, value in (('tool_calls', [{'id': '1', 'function': function}]), ('function_call', function)):
            reply = {'role': 'assistant', 'content': None, key: value, 'loss': False}
            result = call(
                'openai', {'messages': [asked, reply, answer, {'role': 'assistant', 'content': 'r'}]}
            ).messages
            identity = {'id': '1'} if key == 'tool_calls' else {}
            assert result[1] == {'role': 'assistant', 'content': '', 'tool_calls': [identity | wanted], 'train': False}
            assert result[2] == {'role': 'tool', 'content': '3', 'name': 'add', 'tool_call_id': '1'}
        for value in (json.dumps(function), json.dumps([function, function]), function):
            result = call('sharegpt', turns(('human', 'q'), ('function_call', value), ('observation', '3'))).messages
            assert result[1]['tool_calls'] == [wanted] * (2 if str(value).startswith('[') else 1)
            assert result[2] == {'role': 'tool', 'content': '3'}
    for text, arguments in (('a=1', 'a=1'), ('[1]', '[1]'), ('', {}), (None, {})):
        value = {'name': 'add', 'arguments': text}
        result = call('sharegpt', turns(('human', 'q'), ('function_call', value))).messages
        assert result[1]['tool_calls'][0]['function']['arguments'] == arguments


def test_real_tool_calls_lose_nothing():
    rows = rows_of('glaive_toolcall_en.json')
    assert len(rows) == 12
    names = {'human': 'user', 'gpt': 'assistant', 'function_call': 'assistant', 'observation': 'tool'}
    for row in rows:
        given = checked(call('sharegpt', row))
        assert [m['role'] for m in given.messages] == [names[turn['from']] for turn in row['conversations']]
        assert [tool['function'] for tool in given.tools or []] == json.loads(row['tools'])
        for message, turn in zip(given.messages, row['conversations'], strict=True):
            if turn['from'] == 'function_call':
                assert [c['function'] for c in message['tool_calls']] == [json.loads(turn['value'])]
            else:
                assert message['content'] == turn['value'] and 'tool_calls' not in message
    assert sum('tool_calls' in m for row in rows for m in call('sharegpt', row).messages) == 17


def test_real_alpaca_rows():
    rows = rows_of('alpaca_en.json')
    for row in rows:
        question, reply = checked(call('alpaca', row)).messages
        assert question['content'] == row['instruction'] + ('\n' + row['input'] if row['input'] else '')
        assert reply['content'] == row['output']
    assert [bool(row['input']) for row in rows] == [False] * 3 + [True] * 2


@pytest.mark.parametrize('reply', ['chosen', 'rejected'])
def test_real_preferences_train_only_the_selected_response(reply):
    rows = rows_of('dpo_en.json')
    assert len(rows) == 5
    for row in rows:
        given = checked(call('preference', row, reply=reply)).messages
        assert [m['content'] for m in given] == [t['value'] for t in [*row['conversations'], row[reply]]]
        assert [m['content'] for m in given if m['role'] == 'assistant' and m.get('train', True)] == [
            row[reply]['value']
        ]
    assert call('preference', rows[0]) == call('preference', rows[0], reply='chosen')


def test_preference_formats():
    question, reply = {'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!'}
    for row in (
        {'prompt': 'Hi', 'chosen': 'Hello!'},
        {'question': 'Hi', 'chosen': reply},
        {'prompt': 'Hi', 'chosen': [reply]},
        {'prompt': [question], 'chosen': [reply]},
        {'prompt': [question], 'chosen': 'Hello!'},
        {'prompt': 'other', 'chosen': [question, reply]},
        {'conversations': turns(HI[0])['conversations'], 'chosen': 'Hello!'},
        {'conversations': turns(HI[0])['conversations'], 'chosen': [{'from': 'gpt', 'value': 'Hello!'}]},
        {'conversations': [question], 'chosen': reply},
    ):
        row |= {'rejected': 'x', 'tools': [{'name': 'add'}]}
        for name in ('preference', 'orpo_dpo_mix_40k'):
            assert mapped(name, row) == HI and call(name, row).tools
            assert mapped(name, row, system='coder') == [('system', SYSTEM_PROMPTS['coder']), *HI]
            assert mapped(name, row | {'system': 'sql'}, system='coder') == [('system', 'sql'), *HI]
    before = [question, reply, {'role': 'user', 'content': 'more'}]
    for row in ({'prompt': before, 'chosen': [reply]}, {'prompt': 'x', 'chosen': [*before, reply]}):
        trained = [m.get('train', True) for m in messages('orpo_dpo_mix_40k', row) if m['role'] == 'assistant']
        assert trained == [False, True]


PREFERENCES = [
    {'prompt': 'Hi'},
    {'chosen': 'Hello!'},
    {'prompt': 'Hi', 'chosen': [{'role': 'user', 'content': 'x'}]},
    {'prompt': 'Hi', 'chosen': [1]},
    {'prompt': 'Hi', 'chosen': None},
    {'prompt': 'Hi', 'chosen': []},
    {'prompt': {'x': 1}, 'chosen': 'x'},
    {'conversations': 'x', 'chosen': 'x'},
]


def test_preference_faults(golden):
    texts = {}
    for row in PREFERENCES:
        with pytest.raises(RowError) as caught:
            checked(call('preference', row))
        texts[short(row)] = caught.value
    golden('data.rows_preference', texts)


def test_response_neither_chosen_nor_rejected_is_a_config_error():
    with pytest.raises(ConfigError, match="reply='best'.*chosen, rejected"):
        call('preference', {'prompt': 'Hi', 'chosen': 'x'}, reply='best')
