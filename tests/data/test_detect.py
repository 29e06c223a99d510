"""Detection by columns: each shape, which one wins, and what a user is told if none fits."""

import pytest

import xtune.data.map_fns  # noqa: F401  registers the functions
from xtune.data.detect import SHAPES, fitting, require
from xtune.errors import DataError
from xtune.inspection.dataset_formats import formats
from xtune.messages import checked
from xtune.registry import MAP_FNS

# Formats whose rows look like those of another one.
ALIKE = {
    'code_alpaca': 'prompt_response',
    'crime_kg_assitant': 'default',
    'llava': 'sharegpt',
    'medical': 'alpaca',
    'orpo_dpo_mix_40k': 'preference',
    'pretrain': 'text',
    'self_cognition': 'openai',
}
TURNS = [{'from': 'human', 'value': 'Hi'}, {'from': 'gpt', 'value': 'Hello!'}]
MESSAGES = [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!'}]


@pytest.mark.parametrize('shown', formats(), ids=lambda shown: shown.name)
def test_the_row_of_a_format_is_found_by_its_columns(shown):
    name = ALIKE.get(shown.name, shown.name)
    assert fitting(shown.row) == require(shown.row, 'file.json') == name
    checked(MAP_FNS.get(name)(shown.row))


def test_every_registered_function_can_be_found_or_is_known_to_look_like_another():
    ours = {name for name, function in MAP_FNS.module_dict.items() if function.__module__.startswith('xtune.')}
    assert ours - {shape.name for shape in SHAPES} == set(ALIKE) - {'llava'}
    assert {shape.name for shape in SHAPES} <= ours


@pytest.mark.parametrize(
    ('row', 'name'),
    [
        ({'messages': MESSAGES, 'text': 'x'}, 'openai'),
        ({'conversations': MESSAGES}, 'openai'),
        ({'conversation': MESSAGES}, 'openai'),
        ({'dialogue': MESSAGES}, 'openai'),
        ({'conversations': TURNS}, 'sharegpt'),
        ({'conversations': TURNS, 'tools': '[]', 'system': 's'}, 'sharegpt'),
        ({'conversation': TURNS}, 'sharegpt'),
        ({'conversations': TURNS, 'idx': '0'}, 'wizardlm'),
        ({'conversations': "[{'from': 'user', 'value': 'Hi'}, {'from': 'assistant', 'value': 'x'}]"}, 'msagent_react'),
        ({'conversations': TURNS, 'image': ''}, 'llava'),
        ({'conversations': TURNS[:1], 'chosen': TURNS[1], 'rejected': TURNS[1]}, 'preference'),
        ({'prompt': 'Hi', 'chosen': 'Hello!', 'rejected': 'No.'}, 'preference'),
        ({'instruction': 'x', 'output': 'y', 'text': 'z'}, 'alpaca'),
        ({'instruction_zh': 'x', 'output_zh': 'y', 'instruction': 'x', 'output': 'y'}, 'alpaca_zh'),
        ({'Question': 'x', 'Answer': 'y', 'URL': 'z'}, 'medqa'),
        ({'question': 'x', 'answer': 'y'}, 'medqa'),
        ({'question': 'x', 'answer': 'y', 'reference': ['z']}, 'law_reference'),
        ({'context': 'create table a (b int)', 'question': 'x', 'answer': 'y'}, 'sql'),
        ({'question': 'x', 'response': 'y'}, 'stack_exchange'),
        ({'system_prompt': '', 'question': 'x', 'response': 'y'}, 'openorca'),
        ({'Question': 'x', 'Complex_CoT': 'z', 'Response': 'y'}, 'pair'),
        ({'Instruction': 'x', 'Response': 'y'}, 'pair'),
        ({'prompt': 'x', 'completion': 'y'}, 'prompt_response'),
        ({'prompt': 'x', 'response': 'y'}, 'prompt_response'),
        ({'prompt': 'x', 'response': 'y', 'programming_language': 'C'}, 'tiny_codes'),
        ({'input': 'x', 'output': 'y'}, 'default'),
        ({'input_ids': [1, 2], 'labels': [-100, 2]}, 'tokenized'),
        ({'tokens': [-1, 2]}, 'tokenized'),
        ({'text': '### Human: x### Assistant: y'}, 'oasst1'),
        ({'text': 'Some words'}, 'text'),
    ],
    ids=lambda value: ','.join(value) if isinstance(value, dict) else None,
)
def test_the_function_that_is_found_takes_the_row(row, name):
    assert fitting(row) == require(row, 'file.json') == name
    checked(MAP_FNS.get(name)(row))


@pytest.mark.parametrize(
    ('row', 'name'),
    [
        ({'conversations': []}, 'sharegpt'),
        ({'conversations': None}, 'sharegpt'),
        ({'messages': float('nan')}, 'openai'),
        ({'img_id': 'x', 'sents': 'y', 'bbox': []}, 'llava'),
        ({'text': None}, 'text'),
        ({'tokens': 7}, None),
        ({'dialogue': 'x'}, None),
        ({'context': 'Rome is old.', 'question': 'How old?', 'answer': 'Very.'}, None),
        ({'prompt': 'x'}, None),
        ({7: 'x', None: 'y'}, None),
        ({}, None),
    ],
)
def test_odd_cells_do_not_stop_detection(row, name):
    assert fitting(row) == name


def test_no_fit_shows_the_columns_every_format_and_the_command_to_see_more():
    with pytest.raises(DataError) as caught:
        require({'frage': 'x', 'antwort': 'y'}, 'file.json')
    text = str(caught.value)
    assert text.startswith('file.json has the columns frage, antwort, which no built-in format has:\n')
    assert all(f'\n  {shape.name} ' in text for shape in SHAPES)
    assert 'instruction, input (may be missing), output' in text
    assert 'train_dataset.map_fn' in text and 'xtune list-dataset-format' in text
    assert 'map_args.question=' in text  # a form that the command line takes
