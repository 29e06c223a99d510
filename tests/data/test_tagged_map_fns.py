"""Map functions of MOSS, MSAgent-Bench, sets with images and token ids."""

import json
import re

import pytest
from golden import short

import xtune.data.map_fns  # noqa: F401  registers the functions
from xtune.messages import Conversation, RowError, Tokens, checked
from xtune.registry import MAP_FNS, lookup

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


def moss(number=1, **parts):
    turn = {'Human': '<|Human|>: Hi<eoh>\n', 'MOSS': '<|MOSS|>: I am MOSS.<eom>\n'} | parts
    return {'meta_instruction': 'You are MOSS.\n', 'num_turns': number, 'chat': {'turn_1': turn, 'turn_2': turn}}


def test_moss_trains_neither_on_the_human_nor_on_results_and_can_be_renamed():
    none = {
        'Inner Thoughts': '<|Inner Thoughts|>: None<eot>\n',
        'Commands': '<|Commands|>: None<eoc>\n',
        'Tool Responses': '<|Results|>: None<eor>\n',
    }
    plain = [('system', 'You are MOSS.'), ('user', 'Hi'), ('assistant', 'I am MOSS.')]
    assert mapped('moss_sft', moss()) == mapped('moss_sft', moss(**none)) == plain
    assert mapped('moss_sft', moss(2)) == plain + plain[1:]
    assert mapped('moss_sft', moss(), bot_name='Ada')[::2] == [('system', 'You are Ada.'), ('assistant', 'I am Ada.')]
    assert mapped('moss_sft', moss() | {'meta_instruction': ''}) == plain[1:]
    row = moss(**{**none, 'Commands': '<|Commands|>: Search("x")<eoc>\n', 'Tool Responses': '<|Results|>:\ny\n<eor>\n'})
    assert mapped('moss_sft', row)[2:4] == [
        ('assistant', '<|Inner Thoughts|>: None<eot>\n<|Commands|>: Search("x")<eoc>'),
        ('tool', 'y'),
    ]


MOSS_FAULTS = [
    moss(3),
    moss(0),
    moss(MOSS=None),
    moss(Commands=7),
    moss() | {'chat': []},
]


def test_moss_faults(golden):
    texts = {}
    for row in MOSS_FAULTS:
        with pytest.raises(RowError) as caught:
            call('moss_sft', row)
        texts[short(row)] = caught.value
    golden('data.rows_moss_sft', texts)


THINK = '<|startofthink|>```JSON\n{"api_name": "%s", "parameters": {"n": 1}}\n```<|endofthink|>'
EXEC = '<|startofexec|>```JSON\n%s\n```<|endofexec|>'


def agent(*values, system='{"name": "a", "description": "A"}'):
    named = zip(('system', 'user', 'assistant', 'user', 'assistant'), (system, *values), strict=False)
    return {'conversations': repr([{'from': who, 'value': value} for who, value in named])}


def test_msagent_steps_become_actions_responses_and_answers():
    steps = f'first{THINK % "a"}\n\n{EXEC % "{}"}\nthen{THINK % "b"}{EXEC % "no JSON"}\ndone'
    assert mapped('msagent_react', agent('q', steps, 'Thanks', 'Welcome'))[1:] == [
        ('user', 'q'),
        ('assistant', "Thought:first\nAction:a\nAction Input:{'n': 1}"),
        ('tool', 'Response:{}'),
        ('assistant', "Thought:then\nAction:b\nAction Input:{'n': 1}"),
        ('tool', 'Response:no JSON'),
        ('assistant', 'Final Answer:done'),
        ('user', 'Thanks'),
        ('assistant', 'Final Answer:Welcome'),
    ]
    assert mapped('msagent_react', agent('q', THINK % 'a'))[-1][1] == "Action:a\nAction Input:{'n': 1}"


def test_msagent_reads_lists_json_and_tools_with_inputs():
    tool = {'name': 'a', 'description': 'A', 'paths': [{'parameters': [{'name': 'n', 'description': 'a number'}]}]}
    system = f'tools: {{broken {json.dumps(tool)} {{"x": 1}} {{"name": "b", "description": "B"}}'
    rows = [{'from': 'system', 'value': system}, {'from': 'user', 'value': 'q'}, {'from': 'assistant', 'value': 'r'}]
    given = [mapped('msagent_react', {'conversations': form(rows)}) for form in (list, repr, json.dumps)]
    assert given[0] == given[1] == given[2]
    text = given[0][0][1]
    assert str({'a': "A\n输入参数: {'n': 'a number'}", 'b': 'B'}) in text and "[['a', 'b']]" in text
    assert text.endswith('开始!') and not re.search(r'^[ ]|\n\n\n', text, re.M)


MSAGENT_FAULTS = [
    {'id': 'x'},
    {'conversations': '__import__("os")'},
    {'conversations': '(' * 100_000},
    {'conversations': '[1]'},
    {'conversations': [{'from': 'alien', 'value': 'x'}]},
    agent('q', f'x{EXEC % 1}'),
    agent('q', '<|startofthink|>x'),
    agent('q', '<|startofthink|>x<|endofthink|>'),
    agent('q', '<|startofthink|>{"parameters": 1}<|endofthink|>'),
    {'conversations': [{'from': who, 'value': ''} for who in ('user', 'system')]},
]


def test_msagent_faults(golden):
    texts = {}
    for row in MSAGENT_FAULTS:
        with pytest.raises(RowError) as caught:
            call('msagent_react', row)
        texts[short(row)] = caught.value
    golden('data.rows_msagent_react', texts)


def test_llava_maps_only_rows_without_an_image():
    row = turns(('human', 'Hi'), ('gpt', 'Hello!'))
    for empty in (None, '', float('nan'), []):
        assert mapped('llava', row | {'image': empty}) == HI
    for bad in (row | {'image': 'a.jpg'}, row | {'images': ['a.jpg']}, turns(('human', '<image>\nHi'), ('gpt', 'x'))):
        with pytest.raises(RowError, match='^row contains an image: '):
            call('llava', bad)
    with pytest.raises(RowError, match='^row contains an image'):
        call('llava', {'img_id': 'x', 'sents': 'y', 'bbox': [1, 2, 3, 4]})


def test_token_ids_with_and_without_labels():
    assert call('tokenized', {'input_ids': [1, 2, 3]}) == Tokens([1, 2, 3], [True] * 3)
    assert call('tokenized', {'input_ids': [1, 2, 3], 'labels': [-100, -100, 3]}) == Tokens(
        [1, 2, 3], [False, False, True]
    )
    assert call('tokenized', {'input_ids': [1, 2, 0, 0], 'attention_mask': [1, 1, 0, 0]}) == Tokens([1, 2], [True] * 2)
    assert call('tokenized', {'tokens': [0, -2, 3]}) == Tokens([0, 2, 3], [True, False, True])


TOKENIZED_FAULTS = [
    {'input_ids': [1, 2], 'labels': [-100]},
    {'input_ids': [1, 2], 'labels': [2, 3]},
    {'input_ids': [1, 2.5]},
    {'input_ids': [True, 2]},
    {'input_ids': '1, 2'},
    {'tokens': [[1]]},
    {'input_ids': [-1, 2]},
    {},
]


def test_tokenized_faults(golden):
    texts = {}
    for row in TOKENIZED_FAULTS:
        with pytest.raises(RowError) as caught:
            checked(call('tokenized', row))
        texts[short(row)] = caught.value
    golden('data.rows_tokenized', texts)
