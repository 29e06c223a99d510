"""Rows as people have them: each is recognized by its columns, and columns beside a format are used or named."""

import json

import pytest

from xtune.config.sections import Source
from xtune.data.detect import detect_map_fn
from xtune.data.resolve_map_fn import resolve_row_mapper
from xtune.data.sources import Row
from xtune.data.tracked_dict import TrackedDict
from xtune.errors import DataError
from xtune.messages import Conversation, RowError
from xtune.templates.system_prompts import SYSTEM_PROMPTS

HI = [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!'}]
SHAREGPT = [{'from': 'human', 'value': 'Hi'}, {'from': 'gpt', 'value': 'Hello!'}]
SYSTEM = {'role': 'system', 'content': 'Be brief.'}
TOOL = {'name': 'depth', 'description': 'Depth', 'parameters': {'type': 'object', 'properties': {}}}
CALL = {'name': 'depth', 'arguments': {'well': 'A0'}}


def mapper(*rows, map_fn='auto', takes_thoughts=True, **source):
    head = [Row('file', number, row) for number, row in enumerate(rows, 1)]
    return resolve_row_mapper(Source('file', map_fn, **source), head, takes_thoughts)


def made(row, **options):
    return mapper(row, **options)(row)


def spoken(row, **options):
    """Return (role, content) of each message."""
    return [(m['role'], m['content']) for m in made(row, **options).messages]


ROWS = {
    'xtuner': [
        {'conversation': [{'system': 'Be brief.', 'input': 'Hi', 'output': 'Hello!'}]},
        {'conversations': json.dumps([{'input': 'Hi', 'output': 'Hello!', 'system': 'Be brief.'}])},
    ],
    'prompt_completion': [
        {'prompt': [SYSTEM, HI[0]], 'completion': [HI[1]]},
        {'prompt': json.dumps([SYSTEM, HI[0]]), 'completion': json.dumps([HI[1]])},
        {'prompt': [SYSTEM, HI[0]], 'response': 'Hello!'},
        {'prompt': 'Hi', 'completion': [HI[1]], 'system': 'Be brief.'},
    ],
    'query_response': [
        {'system': 'Be brief.', 'query': 'Hi', 'response': 'Hello!', 'history': []},
        {'system': 'Be brief.', 'query': 'Hi', 'response': 'Hello!'},
    ],
    'openai': [
        {'messages': json.dumps([SYSTEM, *HI])},
        {'conversations': json.dumps(HI), 'system': 'Be brief.'},
        {'dialogue': [SYSTEM, *HI]},
    ],
    'sharegpt': [
        {'conversations': json.dumps(SHAREGPT), 'system_prompt': 'Be brief.'},
        {'conversation': SHAREGPT, 'system': 'Be brief.'},
    ],
    'dolly': [
        {'instruction': 'Hi', 'context': '', 'response': 'Hello!', 'system': 'Be brief.'},
        {'instruction': 'Hi', 'response': 'Hello!', 'system_message': 'Be brief.'},
    ],
    'pair': [
        {'Human': 'Hi', 'Assistant': 'Hello!', 'system': 'Be brief.'},
        {'problem': 'Hi', 'solution': 'Hello!', 'system': 'Be brief.'},
        {'Prompt': 'Hi', 'Response': 'Hello!', 'system_prompt': 'Be brief.'},
    ],
    'preference': [
        {'instruction': 'Hi', 'input': '', 'chosen': 'Hello!', 'rejected': 'Go.', 'system': 'Be brief.'},
        {'prompt': json.dumps([SYSTEM, HI[0]]), 'chosen': json.dumps(HI[1:]), 'rejected': '[]'},
        {'prompt': 'Hi', 'chosen': [SYSTEM, *HI], 'rejected': []},
    ],
    'openai_preference': [
        {'input': {'messages': [SYSTEM, HI[0]]}, 'preferred_output': [HI[1]], 'non_preferred_output': [HI[1]]},
    ],
    'alpaca': [{'instruction': 'Hi', 'input': '', 'output': 'Hello!', 'systemPrompt': 'Be brief.'}],
    'default': [{'input': 'Hi', 'output': 'Hello!', 'system': 'Be brief.'}],
    'prompt_response': [{'prompt': 'Hi', 'response': 'Hello!', 'system': 'Be brief.'}],
    'openorca': [{'system_prompt': 'Be brief.', 'question': 'Hi', 'response': 'Hello!'}],
    'medqa': [{'question': 'Hi', 'answer': 'Hello!', 'system': 'Be brief.'}],
}


@pytest.mark.parametrize(('name', 'row'), [(name, row) for name, rows in ROWS.items() for row in rows])
def test_a_format_is_recognized_and_its_system_text_is_used(name, row):
    assert detect_map_fn(row) == name
    assert spoken(row) == [('system', 'Be brief.'), ('user', 'Hi'), ('assistant', 'Hello!')]


def test_several_turns_of_xtuner():
    turns = [
        {'system': 'Be brief.', 'input': 'Hi', 'output': 'Hello!', 'output_with_loss': False},
        {'input': 'And?', 'output': 'Bye.', 'output_with_loss': True},
    ]
    replies = [m for m in made({'conversation': turns}).messages if m['role'] == 'assistant']
    assert [m['train'] for m in replies] == [False, True]


def test_one_turn_of_xtuner_without_input_is_text():
    assert spoken({'conversation': [{'input': '', 'output': 'A whole text.\n'}]}) == [('text', 'A whole text.')]
    row = {'conversation': [{'input': 'Hi', 'output': 'Hello!'}, {'input': '', 'output': 'More.'}]}
    with pytest.raises(RowError, match='empty input'):
        mapper({'conversation': [{'input': 'Hi', 'output': 'Hello!'}]})(row)


def test_replies_of_a_prompt_are_not_trained():
    row = {
        'prompt': [*HI, {'role': 'user', 'content': 'And?'}],
        'completion': [{'role': 'assistant', 'content': 'Bye.'}],
    }
    assert [m.get('train', True) for m in made(row).messages if m['role'] == 'assistant'] == [False, True]


@pytest.mark.parametrize('as_text', [True, False])
def test_calls_answer_a_query(as_text):
    row = {'query': 'How deep?', 'answers': [CALL], 'tools': [TOOL]}
    given = made({name: json.dumps(value) if as_text and name != 'query' else value for name, value in row.items()})
    assert given.messages[-1]['tool_calls'][0]['function'] == CALL
    assert given.tools[0]['function'] == TOOL


def test_json_text_that_is_no_dialogue_stays_text():
    row = {'prompt': '[{"a": 1}]', 'response': '{"b": 2}'}
    assert detect_map_fn(row) == 'prompt_response'
    assert spoken(row) == [('user', '[{"a": 1}]'), ('assistant', '{"b": 2}')]
    row = {'prompt': '[1', 'chosen': '[2]', 'rejected': '[3]'}
    assert spoken(row) == [('user', '[1'), ('assistant', '[2]')]


def test_the_text_of_a_row_follows_that_of_its_messages():
    assert spoken({'messages': [SYSTEM, *HI], 'system': 'Be kind.'})[0] == ('system', 'Be brief.\n\nBe kind.')
    assert spoken({'messages': [SYSTEM, *HI], 'system': 'Be brief.'})[0] == ('system', 'Be brief.')
    row = {'prompt': 'Hi', 'chosen': [SYSTEM, *HI], 'rejected': [], 'system': 'Be kind.'}
    assert spoken(row)[0] == ('system', 'Be brief.\n\nBe kind.')


def test_the_text_of_a_row_comes_before_those_of_function_and_config():
    row = {'prompt': 'Sort.', 'completion': 'sorted()', 'system': 'coder'}
    assert spoken(row, map_fn='code_alpaca')[0] == ('system', 'coder')
    assert spoken({**row, 'system': ' '}, map_fn='code_alpaca')[0] == ('system', SYSTEM_PROMPTS['coder'])
    assert spoken(row, system='Be kind.')[0] == ('system', 'coder')
    assert spoken({**row, 'system': None}, system='Be kind.')[0] == ('system', 'Be kind.')


def own_map_fn(row):
    """Map questions."""
    return [{'role': 'user', 'content': row['q']}, {'role': 'assistant', 'content': 'a'}]


def test_user_map_function_gets_the_unmodified_row():
    row = TrackedDict({'q': 'Hi', 'system': 'Be brief.', 'images': ['a.png'], 'reasoning': 'x'})
    given = mapper(row, map_fn=own_map_fn)(row)
    assert [m['role'] for m in given.messages] == ['user', 'assistant'] and row.read_keys == {'q'}


MEDIA = [
    {'images': ['a.png']},
    {'image': {'bytes': b'x', 'path': None}},
    {'audios': ['a.wav']},
    {'video': 'a.mp4'},
]


@pytest.mark.parametrize('media', MEDIA)
@pytest.mark.parametrize('row', [{'messages': HI}, {'prompt': 'Hi', 'response': 'Hello!'}])
def test_media_are_refused_unless_the_config_says_so(row, media):
    with pytest.raises(RowError, match=next(iter(media))):
        made(row | media)
    assert len(made(row | media, ignore=list(media)).messages) == 2
    assert len(made(row | {name: None for name in media}).messages) == 2
    assert len(made(row | {name: [] for name in media}).messages) == 2


@pytest.mark.parametrize(
    'text',
    [
        '<|vision_start|><|image_pad|><|vision_end|>What is it?',
        '<|image_1|>\nWhat?',
        'Picture 1: <img>a.png</img> What?',
        '<|AUDIO|>\nWhat is said?',
        '<image>What is it?',
        'What is it?\n<image>',
        'Hear: <audio>',
        '<video>\nWhat happens?',
    ],
)
def test_media_placeholders_are_refused(text):
    with pytest.raises(RowError, match='image|audio|video'):
        made({'prompt': text, 'response': 'A boat.'})


@pytest.mark.parametrize(
    'text',
    [
        'What does <|image_pad|> mean here?',
        'An <img src="a.png"> has no end.',
        'What does <image> do?',
        '<video>\n<source src="a">\n</video>',
        'a <b> c',
        '<images>',
    ],
)
def test_text_about_tags_is_text(text):
    assert spoken({'prompt': text, 'response': text})[0] == ('user', text)


@pytest.mark.parametrize('name', ['reasoning', 'reasoning_content', 'thinking', 'Complex_CoT', 'cot'])
@pytest.mark.parametrize(
    'row', [{'question': 'Hi', 'response': 'Hello!'}, {'messages': HI}, {'input': 'Hi', 'output': 'x'}]
)
def test_reasoning_column_belongs_to_the_last_message(row, name):
    row = {**row, name: ' A greeting. '}
    assert made(row).messages[-1]['reasoning_content'] == 'A greeting.'
    without = made(row, takes_thoughts=False)
    assert 'reasoning_content' not in without.messages[-1]
    assert any(name in what and 'greeting' in shown for what, shown in without.notes)


def test_existing_reasoning_is_kept():
    row = {'messages': [HI[0], {**HI[1], 'reasoning_content': 'own'}], 'reasoning': 'other'}
    assert made(row).messages[-1]['reasoning_content'] == 'own'


def test_answer_column_is_not_reasoning():
    row = {'q': 'Hi', 'rationale': 'Because.'}
    given = made(row, map_fn='pair', map_args=dict(question='q', answer='rationale'))
    assert 'reasoning_content' not in given.messages[-1] and given.messages[-1]['content'] == 'Because.'


@pytest.mark.parametrize(
    ('map_fn', 'row', 'better'),
    [
        ('alpaca', {'messages': HI}, 'openai'),
        ('openai', {'conversations': SHAREGPT}, 'sharegpt'),
        ('sharegpt', {'conversations': HI}, 'openai'),
        ('sharegpt', {'conversation': [{'input': 'Hi', 'output': 'x'}]}, 'xtuner'),
        ('prompt_response', {'prompt': [HI[0]], 'completion': [HI[1]]}, 'prompt_completion'),
    ],
)
def test_the_format_that_fits_is_named(map_fn, row, better):
    with pytest.raises(DataError, match=f"map_fn='{better}'"):
        mapper(row, row, map_fn=map_fn)


def test_no_map_function_is_auto():
    assert isinstance(made({'messages': HI}, map_fn=None), Conversation)


def test_columns_that_no_format_has_are_compared_with_those_that_exist():
    with pytest.raises(DataError) as error:
        mapper({'instruktion': 'a', 'out_put': 'b'})
    text = str(error.value)
    assert '`instruktion` is similar to `instruction`' in text and '`out_put` is similar to `output`' in text
    assert len(text.splitlines()) <= 35
