"""Map functions: the row and result of each docstring, the odd rows, and detection by columns."""

import json
import re

import pytest

from xtune.config.sections import Source
from xtune.data.conversation import RowError, checked
from xtune.data.detect import fitting, require
from xtune.data.map_fns import self_cognition_map_fn, sharegpt_map_fn
from xtune.data.prepare import bound_map_fn
from xtune.data.readers import read_file
from xtune.data.sources import BUNDLED, Row
from xtune.errors import ConfigError, DataError
from xtune.registry import MAP_FNS, lookup

HI = [('user', 'Hi'), ('assistant', 'Hello!')]


def mapped(name, row, **arguments):
    return [(m['role'], m['content']) for m in lookup(MAP_FNS, name)(row, **arguments)]


def heads(*rows):
    return [Row('file.json', number, row) for number, row in enumerate(rows, 1)]


def turns(*pairs):
    return {'conversations': [{'from': who, 'value': value} for who, value in pairs]}


def talk(*messages):
    return {'messages': [{'role': role, 'content': content} for role, content in messages]}


WHO = [('user', 'Who are you?'), ('assistant', 'I am {{NAME}}, made by {{AUTHOR}}.')]
GUANACO = '### Human: What is a monopsony?### Assistant: A market with one buyer.### Human: Thanks'
DOCSTRINGS = {
    'alpaca': ({'instruction': 'Add.', 'input': '2, 3', 'output': '5'}, [('user', 'Add.\n2, 3'), ('assistant', '5')]),
    'medqa': ({'Question': 'Hi\n', 'Answer': ' Hello!'}, HI),
    'oasst1': ({'text': GUANACO}, [('user', 'What is a monopsony?'), ('assistant', 'A market with one buyer.')]),
    'openai': (talk(*HI), HI),
    'self_cognition': (talk(*WHO), [WHO[0], ('assistant', 'I am Xiaotu, made by the xtune team.')]),
    'sharegpt': (turns(('human', 'Hi'), ('gpt', 'Hello!')), HI),
    'text': ({'text': ' Anarchism is ...\n'}, [('text', 'Anarchism is ...')]),
}


@pytest.mark.parametrize('name', DOCSTRINGS)
def test_row_and_result_of_the_docstring(name):
    row, result = DOCSTRINGS[name]
    assert [(m['role'], m['content']) for m in checked(lookup(MAP_FNS, name)(row))] == result


def test_every_built_in_function_has_its_row_here():
    ours = {name for name, function in MAP_FNS.module_dict.items() if function.__module__.startswith('xtune.')}
    assert ours == set(DOCSTRINGS)


def test_alpaca_without_input_ends_in_no_newline_and_nooutput_is_an_empty_reply():
    for row in ({}, {'input': ''}, {'input': None}):
        assert mapped('alpaca', {'instruction': 'Hi', 'output': 'Hello!', **row}) == HI
    with pytest.raises(RowError, match='^empty reply: the output is "<nooutput>"$'):
        mapped('alpaca', {'instruction': 'x', 'input': '', 'output': '<nooutput>'})


def test_alpaca_system_and_history_come_before_the_question():
    row = {'instruction': 'q3', 'output': 'r3', 'system': 's', 'history': [['q1', 'r1'], ['q2', 'r2']]}
    assert [content for _, content in mapped('alpaca', row)] == ['s', 'q1', 'r1', 'q2', 'r2', 'q3', 'r3']
    assert len(mapped('alpaca', {**row, 'history': None, 'system': None})) == 2


def test_oasst1_headings_stay_and_the_last_question_is_left_out():
    reply = '# One\n### Two\ntext\n### Humans: a heading\n#### Three'
    row = {'text': f'### Human: q### Assistant: {reply}### Human: and?### Assistant: no.### Human: why?'}
    messages = checked(lookup(MAP_FNS, 'oasst1')(row))
    assert [m['content'] for m in messages] == ['q', reply, 'and?', 'no.']
    with pytest.raises(RowError, match='no "### Human:" and "### Assistant:" turns'):
        mapped('oasst1', {'text': 'only text'})


def test_columns_of_medqa_can_be_named():
    assert mapped('medqa', {'q': 'Hi', 'a': 'Hello!'}, question='q', answer='a') == HI


def test_sharegpt_system_tools_and_calls():
    call = '{"name": "add", "arguments": {"a": 1}}'
    row = turns(
        ('system', 'Be brief.'), ('human', 'q'), ('function_call', call), ('observation', '3'), ('gpt', 'It is 3.')
    )
    messages = checked(sharegpt_map_fn(row | {'tools': [{'name': 'add'}]}))
    assert [m['role'] for m in messages] == ['system', 'user', 'assistant', 'tool', 'assistant']
    assert messages[0]['content'] == 'Be brief.\n\nYou can call these tools:\n[{"name": "add"}]'
    assert [m['content'] for m in messages[1:]] == ['q', call, '3', 'It is 3.']


def test_sharegpt_takes_a_system_column_drops_a_greeting_and_passes_over_empty_tools():
    for tools in (None, '', '[]', []):
        assert mapped('sharegpt', turns(('human', 'Hi'), ('gpt', 'Hello!')) | {'tools': tools}) == HI
    row = turns(('gpt', 'Welcome'), ('user', 'Hi'), ('assistant', 'Hello!')) | {'system': 's'}
    assert mapped('sharegpt', row) == [('system', 's'), *HI]


@pytest.mark.parametrize(
    'row, message',
    [
        (turns(('human', 'x'), ('alien', 'y')), "unknown role: turn 2 is from 'alien'; known: human, user, gpt"),
        ({'conversations': [{'role': 'user'}]}, 'turn without from or value: turn 1 is'),
        ({'conversations': 'x'}, 'column `conversations` is not a list of turns: it holds a str'),
        ({'chat': []}, 'no column `conversations`: the columns are chat'),
    ],
)
def test_sharegpt_faults(row, message):
    with pytest.raises(RowError, match=message):
        sharegpt_map_fn(row)


@pytest.mark.parametrize('key', ['train', 'loss', 'weight'])
def test_openai_flags_decide_what_is_trained(key):
    row = {'messages': [{'role': 'assistant', 'content': 'x', key: value} for value in (False, 0, 0.0, True, 1, None)]}
    flags = [message.get('train') for message in lookup(MAP_FNS, 'openai')(row)]
    assert flags == [False, False, False, True, True, None]


def test_openai_parts_tool_calls_and_roles():
    parts = [{'type': 'text', 'text': 'Hi '}, {'type': 'text', 'text': 'you'}]
    call = {'id': '1', 'type': 'function', 'function': {'name': 'add', 'arguments': '{"数": 1}'}}
    row = talk(('developer', 's'), ('user', parts), ('assistant', None), ('tool', '3'), ('assistant', 'It is 3.'))
    row['messages'][2]['tool_calls'] = [call]
    result = mapped('openai', row)
    assert [role for role, _ in result] == ['system', 'user', 'assistant', 'tool', 'assistant']
    assert result[1][1] == 'Hi you'
    assert json.loads(result[2][1]) == call['function'] and '数' in result[2][1]


@pytest.mark.parametrize(
    'row, message',
    [
        ({'text': 'x'}, 'no column `messages`: the columns are text'),
        ({'messages': 'x'}, 'column `messages` is not a list of messages: it holds a str'),
        ({'messages': ['x']}, "message without role or content: message 1 is 'x'"),
        (talk(('user', [{'type': 'image_url'}])), 'content is not text: message 1 has parts that are not text'),
        (talk(('user', [{'type': 'text', 'text': None}])), 'content is not text'),
    ],
)
@pytest.mark.parametrize('name', ['openai', 'self_cognition'])
def test_openai_faults(name, row, message):
    with pytest.raises(RowError, match=message):
        mapped(name, row)


def test_self_cognition_leaves_a_fault_of_content_to_the_check():
    with pytest.raises(RowError, match='content is not text'):
        checked(self_cognition_map_fn(talk(('user', 'x'), ('assistant', 7))))


def test_bundled_self_cognition_is_whole_in_two_languages_without_placeholders():
    rows = [row for _, row in read_file(BUNDLED['self_cognition'])]
    talks = [checked(self_cognition_map_fn(row, name='Ada', author='Lovelace')) for row in rows]
    texts = [''.join(m['content'] for m in messages) for messages in talks]
    assert 60 <= len(rows) <= 100
    assert not [text for text in texts if re.search(r'[{}]|NAME|AUTHOR', text)]
    chinese = [text for text in texts if re.search('[一-鿿]', text)]
    assert 20 <= len(chinese) <= len(texts) - 20
    assert sum('Ada' in text for text in texts) > len(texts) / 2 and any('Lovelace' in text for text in texts)


@pytest.mark.parametrize(
    'row, name',
    [
        ({'messages': [], 'text': ''}, 'openai'),
        ({'conversations': []}, 'sharegpt'),
        ({'conversation': []}, 'sharegpt'),
        ({'instruction': 'x', 'output': 'y'}, 'alpaca'),
        ({'Question': 'x', 'Answer': 'y', 'URL': 'z'}, 'medqa'),
        ({'text': '### Human: x### Assistant: y'}, 'oasst1'),
        ({'text': 'Some words'}, 'text'),
    ],
)
def test_detection_by_columns_names_a_function_that_takes_the_row(row, name):
    assert fitting(row) == require(row, 'file.json') == name
    lookup(MAP_FNS, name)(row)


def test_detection_without_a_fit_shows_columns_and_formats():
    assert fitting({'prompt': 'x'}) is None
    with pytest.raises(DataError, match=r'(?s)file\.json has the columns prompt, reply.* alpaca .*map_fn'):
        bound_map_fn(Source(path='file.json'), heads({'prompt': 'x', 'reply': 'y'}))


def test_map_function_that_does_not_fit_names_the_one_that_does():
    rows = heads({'Question': 'x', 'Answer': 'y'})
    with pytest.raises(
        DataError, match=r"file\.json, row 1 .*`alpaca_map_fn`: no column `output`.*map_fn='medqa' fits"
    ):
        bound_map_fn(Source(path='file.json', map_fn='alpaca'), rows)


def test_first_rows_may_be_bad_if_one_of_them_fits():
    rows = heads({'output': '<nooutput>'}, {'instruction': 'Hi', 'output': 'Hello!'})
    assert bound_map_fn(Source(path='file.json', map_fn='alpaca'), rows)(rows[1].values)[1]['content'] == 'Hello!'


def test_unknown_map_function_and_wrong_arguments_are_told():
    rows = heads({'instruction': 'x', 'output': 'y'})
    with pytest.raises(ConfigError, match=r'no map function is registered as `alpacca`; did you mean `alpaca`\?'):
        bound_map_fn(Source(path='file.json', map_fn='alpacca'), rows)
    with pytest.raises(DataError, match='`alpaca_map_fn`: .*nme.*; see train_dataset.map_args'):
        bound_map_fn(Source(path='file.json', map_args={'nme': 1}), rows)
