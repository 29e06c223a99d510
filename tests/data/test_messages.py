"""Common variants of messages: switches for the loss, consecutive calls, content blocks of vendor APIs."""

import json

import pytest

from xtune.config.sections import Source
from xtune.data.key_usage import KeyUsage
from xtune.data.resolve_map_fn import resolve_row_mapper
from xtune.data.sources import Row
from xtune.data.tracked_dict import TrackedDict
from xtune.data.unused_data import UnusedData
from xtune.messages import RowError

CALL = {'name': 'depth', 'arguments': {'well': 'A0'}}
SCHEMA = {'type': 'object', 'properties': {'well': {'type': 'string'}}}
TOOL = {'name': 'depth', 'description': 'Depth of a well', 'parameters': SCHEMA}


def mapper(row, **source):
    return resolve_row_mapper(Source('file', **source), [Row('file', 1, row)])


def made(row, **source):
    return mapper(row, **source)(row)


def shown(row):
    """Return (role, content, calls) of each message."""
    return [(m['role'], m['content'], [c['function'] for c in m.get('tool_calls', ())]) for m in made(row).messages]


def unused(row):
    """Return the names of what the map function of `row` does not read."""
    usage, found = KeyUsage(mapper(row)), UnusedData()
    usage.add(Row('file', 1, row))
    usage.add_to(found)
    return set(found.rows)


def chat(**switch):
    first = {'role': 'assistant', 'content': 'Wrong.', **switch}
    return {
        'messages': [
            {'role': 'user', 'content': 'Hi'},
            first,
            {'role': 'user', 'content': 'Again?'},
            {'role': 'assistant', 'content': 'Right.'},
        ]
    }


def sharegpt(**switch):
    names = {'role': 'from', 'content': 'value'}
    turns = [{names.get(key, key): value for key, value in m.items()} for m in chat(**switch)['messages']]
    return {'conversations': [{**turn, 'from': {'user': 'human'}.get(turn['from'], 'gpt')} for turn in turns]}


OFF = [
    {'train': False},
    {'loss': 0},
    {'weight': 0.0},
    {'loss_weight': 0.0},
    {'loss_scale': '0'},
    {'mask': True},
    {'masked': 1},
    {'train_detail': [{'begin_offset': 0, 'end_offset': 5, 'train': False}]},
]
ON = [
    {'train': True},
    {'loss_weight': 1.0},
    {'masked': False},
    {'mask': 0},
    {
        'train_detail': [
            {'begin_offset': 3, 'end_offset': 5, 'train': 1},
            {'begin_offset': 0, 'end_offset': 2, 'train': 1},
        ]
    },
]
BETWEEN = [
    {'weight': 0.5},
    {'loss_weight': 0.3},
    {'loss_scale': 2},
    {'masked': 0.5},
    {'loss': 'half'},
    {'train_detail': [{'begin_offset': 0, 'end_offset': 2, 'train': True}]},
    {
        'train_detail': [
            {'begin_offset': 0, 'end_offset': 2, 'train': True},
            {'begin_offset': 3, 'end_offset': 5, 'train': False},
        ]
    },
    {'train_detail': [{'begin': 0}]},
]


@pytest.mark.parametrize('make', [chat, sharegpt])
@pytest.mark.parametrize(('switch', 'expected'), [(s, False) for s in OFF] + [(s, True) for s in ON])
def test_switches_of_a_message_decide_its_loss(make, switch, expected):
    row = make(**switch)
    assert [m.get('train', True) for m in made(row).messages if m['role'] == 'assistant'] == [expected, True]
    assert unused(row) == set()


@pytest.mark.parametrize('make', [chat, sharegpt])
@pytest.mark.parametrize('switch', BETWEEN)
def test_partial_messages_and_partial_losses_are_refused(make, switch):
    [name] = switch
    with pytest.raises(RowError, match=name):
        made(make(**switch))


def observation(text):
    return {'from': 'observation', 'value': text}


def called(well):
    return {'from': 'function_call', 'value': json.dumps({'name': 'depth', 'arguments': {'well': well}})}


ASKED, TOLD = {'from': 'human', 'value': 'How deep?'}, {'from': 'gpt', 'value': '7 metres.'}


def test_consecutive_calls_are_one_message():
    row = {'conversations': [ASKED, called('A'), called('B'), observation('7'), observation('9'), TOLD]}
    wells = [{'name': 'depth', 'arguments': {'well': well}} for well in 'AB']
    assert shown(row)[1] == ('assistant', '', wells) and len(shown(row)) == 5


def test_a_call_after_text_is_part_of_the_same_message():
    row = {'conversations': [ASKED, {'from': 'gpt', 'value': 'I look.'}, called('A0'), observation('7'), TOLD]}
    assert shown(row)[1] == ('assistant', 'I look.', [CALL])
    messages = [
        {'role': 'user', 'content': 'How deep?'},
        {'role': 'assistant', 'content': 'I look.'},
        {'role': 'assistant', 'content': None, 'tool_calls': [{'type': 'function', 'function': CALL}]},
        {'role': 'tool', 'content': '7'},
        {'role': 'assistant', 'content': '7 metres.'},
    ]
    assert shown({'messages': messages}) == shown(row)


def test_training_only_the_call_of_a_message_is_refused():
    text = {'from': 'gpt', 'value': 'I look.', 'train': False}
    with pytest.raises(RowError, match='differ'):
        made({'conversations': [ASKED, text, called('A0'), observation('7'), TOLD]})


def test_roles_of_other_formats_in_messages():
    messages = [
        {'role': 'human', 'content': 'How deep?'},
        {'role': 'tool_call', 'content': json.dumps(CALL)},
        {'role': 'tool_response', 'content': '7'},
        {'role': 'model', 'content': '7 metres.'},
    ]
    row = {'messages': messages, 'tools': json.dumps([TOOL])}
    expected = [('user', 'How deep?', []), ('assistant', '', [CALL]), ('tool', '7', []), ('assistant', '7 metres.', [])]
    assert shown(row) == expected and made(row).tools[0]['function'] == TOOL and unused(row) == set()


ANTHROPIC = {
    'system': [{'type': 'text', 'text': 'Be brief.'}],
    'messages': [
        {'role': 'user', 'content': [{'type': 'text', 'text': 'How deep?'}]},
        {
            'role': 'assistant',
            'content': [
                {'type': 'thinking', 'thinking': 'Look it up.', 'signature': 'x'},
                {'type': 'text', 'text': 'I look.'},
                {'type': 'tool_use', 'id': 't1', 'name': 'depth', 'input': {'well': 'A0'}},
            ],
        },
        {'role': 'user', 'content': [{'type': 'tool_result', 'tool_use_id': 't1', 'content': '7 m'}]},
        {'role': 'assistant', 'content': [{'type': 'text', 'text': '7 metres.'}]},
    ],
    'tools': [{'name': 'depth', 'description': 'Depth of a well', 'input_schema': SCHEMA}],
}
BEDROCK = {
    'schemaVersion': 'bedrock-conversation-2024',
    'system': [{'text': 'Be brief.'}],
    'messages': [
        {'role': 'user', 'content': [{'text': 'How deep?'}]},
        {
            'role': 'assistant',
            'content': [
                {'reasoningContent': {'reasoningText': {'text': 'Look it up.'}}},
                {'text': 'I look.'},
                {'toolUse': {'toolUseId': 't1', 'name': 'depth', 'input': {'well': 'A0'}}},
            ],
        },
        {'role': 'user', 'content': [{'toolResult': {'toolUseId': 't1', 'content': [{'text': '7 m'}]}}]},
        {'role': 'assistant', 'content': [{'text': '7 metres.'}]},
    ],
    'toolConfig': {
        'tools': [{'toolSpec': {'name': 'depth', 'description': 'Depth of a well', 'inputSchema': {'json': SCHEMA}}}]
    },
}
GEMINI = {
    'systemInstruction': {'role': 'system', 'parts': [{'text': 'Be brief.'}]},
    'contents': [
        {'role': 'user', 'parts': [{'text': 'How deep?'}]},
        {
            'role': 'model',
            'parts': [
                {'text': 'Look it up.', 'thought': True},
                {'text': 'I look.'},
                {'functionCall': {'name': 'depth', 'args': {'well': 'A0'}}},
            ],
        },
        {'role': 'user', 'parts': [{'functionResponse': {'name': 'depth', 'response': '7 m'}}]},
        {'role': 'model', 'parts': [{'text': '7 metres.'}]},
    ],
    'tools': [{'functionDeclarations': [TOOL]}],
}


@pytest.mark.parametrize('row', [ANTHROPIC, BEDROCK, GEMINI], ids=['anthropic', 'bedrock', 'gemini'])
def test_content_blocks_of_vendor_apis_are_read_completely(row):
    result = '"7 m"' if row is GEMINI else '7 m'
    assert shown(row) == [
        ('system', 'Be brief.', []),
        ('user', 'How deep?', []),
        ('assistant', 'I look.', [CALL]),
        ('tool', result, []),
        ('assistant', '7 metres.', []),
    ]
    given = made(row)
    assert given.messages[2]['reasoning_content'] == 'Look it up.' and given.tools[0]['function'] == TOOL
    assert unused(row) == set()


@pytest.mark.parametrize(
    'part',
    [
        {'type': 'image_url', 'image_url': {'url': 'a.png'}},
        {'type': 'input_audio', 'input_audio': {}},
        {'type': 'document', 'source': {}},
        {'inlineData': {'mimeType': 'image/png'}},
        {'image': {'format': 'png'}},
        7,
    ],
)
def test_content_parts_other_than_text_are_refused(part):
    rows = [{'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'See'}, part]}]}]
    with pytest.raises(RowError, match='part 2 of message 1'):
        mapper(chat())(rows[0])


def test_a_refusal_field_is_the_content():
    row = chat()
    row['messages'][-1] = {'role': 'assistant', 'content': None, 'refusal': 'I cannot.'}
    assert shown(row)[-1] == ('assistant', 'I cannot.', [])
    row['messages'][-1] = {'role': 'assistant', 'content': [{'type': 'refusal', 'refusal': 'I cannot.'}]}
    assert shown(row)[-1] == ('assistant', 'I cannot.', [])


def test_a_greeting_and_what_follows_the_last_reply_are_noted():
    row = chat()
    row['messages'].insert(0, {'role': 'assistant', 'content': 'Welcome.'})
    row['messages'].append({'role': 'user', 'content': 'Thanks.'})
    assert [(what.split()[0], text) for what, text in made(row).notes] == [
        ('assistant', "'Welcome.'"),
        ('turns', "user: 'Thanks.'"),
    ]


def test_tools_keep_the_keys_that_templates_render():
    tool = {'type': 'function', 'function': {**TOOL, 'strict': True, 'return': {'type': 'number'}}}
    assert made(chat() | {'tools': [tool]}).tools == [tool]
    assert made(chat() | {'tools': [{**TOOL, 'strict': None}]}).tools[0]['function'] == TOOL
    with pytest.raises(RowError, match='web_search'):
        mapper(chat())(chat() | {'tools': [{'type': 'web_search', 'name': 'web_search'}]})


@pytest.mark.parametrize('extra', [{'name': 'Ann'}, {'annotations': [1]}, {'audio': {'id': 'a'}}])
def test_other_keys_of_a_message_are_reported(extra):
    row = chat()
    row['messages'][0] |= extra
    [name] = extra
    assert unused(row) == {f'key `messages[user].{name}`'}
    assert made(TrackedDict(row)).messages == made(row).messages
