"""Detection by columns: each pattern, which one has precedence, and the error if none fits."""

import pytest

import xtune.data.map_fns  # noqa: F401  registers the functions
from xtune.data.column_patterns import COLUMN_PATTERNS
from xtune.data.detect import detect_map_fn, require_map_fn
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


@pytest.mark.parametrize('entry', formats(), ids=lambda entry: entry.name)
def test_the_example_row_of_a_format_is_detected_by_its_columns(entry):
    name = ALIKE.get(entry.name, entry.name)
    assert detect_map_fn(entry.row) == require_map_fn(entry.row, 'file.json') == name
    checked(MAP_FNS.get(name)(entry.row))


def test_every_registered_function_is_detected_or_known_to_look_like_another():
    ours = {name for name, function in MAP_FNS.module_dict.items() if function.__module__.startswith('xtune.')}
    assert ours - {pattern.name for pattern in COLUMN_PATTERNS} == set(ALIKE) - {'llava'}
    assert {pattern.name for pattern in COLUMN_PATTERNS} <= ours


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
    assert detect_map_fn(row) == require_map_fn(row, 'file.json') == name
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
    assert detect_map_fn(row) == name


def test_no_fit_shows_the_columns_every_format_and_the_command_to_see_more():
    with pytest.raises(DataError) as caught:
        require_map_fn({'frage': 'x', 'antwort': 'y'}, 'file.json')
    text = str(caught.value)
    assert text.startswith('file.json has the columns frage, antwort')
    assert all(f'\n  {pattern.name} ' in text for pattern in COLUMN_PATTERNS)
    assert 'instruction, input' in text
    assert 'train_dataset.map_fn' in text and 'xtune list-dataset-format' in text
    assert 'map_args.question=' in text  # a form that the command line takes
