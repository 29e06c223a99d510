"""Map functions: the row and result of each docstring, questions and answers in columns, and the command."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from xtune.config.sections import Source
from xtune.data import map_fns
from xtune.data.local import BUNDLED
from xtune.data.map_fns import self_cognition_map_fn
from xtune.data.readers import read_file
from xtune.data.resolve_map_fn import resolve_row_mapper
from xtune.data.sources import Row
from xtune.errors import ConfigError, DataError, TemplateError
from xtune.inspection.dataset_formats import described, formats
from xtune.messages import Conversation, RowError, checked
from xtune.registry import MAP_FNS, lookup
from xtune.templates.system_prompts import SYSTEM_PROMPTS, system_text

HI = [('user', 'Hi'), ('assistant', 'Hello!')]
OURS = sorted(name for name, function in MAP_FNS.module_dict.items() if function.__module__.startswith('xtune.'))
# Functions of one question and one reply -> their columns, and the system text they add.
COLUMNS = {
    'alpaca': ('instruction', 'output', None),
    'alpaca_zh': ('instruction_zh', 'output_zh', None),
    'arxiv': ('abstract', 'title', 'arxiv_gentile'),
    'code_alpaca': ('prompt', 'completion', 'coder'),
    'colors': ('description', 'color', 'colorist'),
    'crime_kg_assitant': ('input', 'output', 'lawyer'),
    'default': ('input', 'output', None),
    'law_reference': ('question', 'answer', 'lawyer'),
    'medical': ('instruction', 'output', 'medical'),
    'medqa': ('Question', 'Answer', None),
    'stack_exchange': ('question', 'response', None),
    'tiny_codes': ('prompt', 'response', 'coder'),
}


def call(name, row, **arguments):
    return lookup(MAP_FNS, name)(row, **arguments)


def mapped(name, row, **arguments):
    given = call(name, row, **arguments)
    given = given.messages if isinstance(given, Conversation) else given
    return [(m['role'], m['content']) for m in given]


def heads(*rows):
    return [Row('file.json', number, row) for number, row in enumerate(rows, 1)]


@pytest.mark.parametrize('key', ['reasoning_content', 'thinking'])
def test_reasoning_is_kept(key):
    reply = {'role': 'assistant', 'content': '4', key: 'Two and two.'}
    given = call('openai', {'messages': [{'role': 'user', 'content': '2 + 2?'}, reply]})
    assert given.messages[1] == {'role': 'assistant', 'content': '4', 'reasoning_content': 'Two and two.'}


@pytest.mark.parametrize('name', OURS)
def test_docstring_row_maps_to_its_result(name):
    shown = described(name, lookup(MAP_FNS, name))
    made = checked(call(name, shown.row))
    assert (replace(made, notes=()) if isinstance(made, Conversation) else made) == shown.result


def test_every_function_is_registered_exported_and_described():
    assert [f'{name}_map_fn' for name in OURS] == sorted(map_fns.__all__)
    for name in OURS:
        assert getattr(map_fns, f'{name}_map_fn') is lookup(MAP_FNS, name)
        shown = described(name, lookup(MAP_FNS, name))
        assert len(shown.summary) <= 110 and shown.summary.endswith('.')


NESTED = ('x', '[]', 7, 0.5, float('nan'), True, None, b'x', {}, {'x': 1}, [], [None], [1], ['x'], [[]], [{}])


@pytest.mark.parametrize('shown', formats(), ids=lambda shown: shown.name)
def test_any_value_in_any_column_gives_a_result_or_a_row_error(shown):
    for name in [*shown.row, 'system', 'history', 'tools', 'labels', 'attention_mask', 'image', 'prompt']:
        for value in NESTED:
            try:
                checked(call(shown.name, shown.row | {name: value}))
            except RowError as error:
                assert error.reason
        try:
            checked(call(shown.name, {key: value for key, value in shown.row.items() if key != name}))
        except RowError as error:
            assert error.reason


@pytest.mark.parametrize(('name', 'columns'), COLUMNS.items(), ids=COLUMNS)
def test_system_text_by_default_by_name_by_text_or_none(name, columns):
    question, reply, default = columns
    row = {question: 'Hi', reply: 'Hello!'}
    assert mapped(name, row) == ([('system', SYSTEM_PROMPTS[default])] if default else []) + HI
    assert mapped(name, row, system=None) == HI
    assert mapped(name, row, system='sql')[0] == ('system', SYSTEM_PROMPTS['sql'])
    assert mapped(name, row, system='Be brief.')[0] == ('system', 'Be brief.')
    with pytest.raises(TemplateError, match='`codr`; did you mean `coder`'):
        call(name, row, system='codr')


@pytest.mark.parametrize(('name', 'columns'), COLUMNS.items(), ids=COLUMNS)
def test_numbers_and_empty_missing_or_list_cells(name, columns):
    question, reply, _ = columns
    assert mapped(name, {question: 7, reply: 0.5}, system=None) == [('user', '7'), ('assistant', '0.5')]
    for empty in (None, float('nan'), '', '  '):
        with pytest.raises(RowError, match='^empty reply'):
            checked(call(name, {question: 'Hi', reply: empty}))
    with pytest.raises(RowError, match=f'^no column `{reply}`: the columns are {question}$'):
        call(name, {question: 'Hi'})
    with pytest.raises(RowError, match=f'^column `{reply}` is not text: it holds a list$'):
        call(name, {question: 'Hi', reply: ['Hello!']})


@pytest.mark.parametrize(
    ('name', 'suffix'), [('alpaca', ''), ('alpaca_zh', '_zh'), ('medical', '')], ids=['alpaca', 'alpaca_zh', 'medical']
)
def test_an_empty_input_adds_no_newline_and_nooutput_is_an_empty_reply(name, suffix):
    row = {f'instruction{suffix}': 'Hi', f'output{suffix}': 'Hello!'}
    for given in ({}, {f'input{suffix}': ''}, {f'input{suffix}': None}, {f'input{suffix}': float('nan')}):
        assert mapped(name, row | given, system=None) == HI
    assert mapped(name, row | {f'input{suffix}': 'you'}, system=None)[0] == ('user', 'Hi\nyou')
    with pytest.raises(RowError, match=f'^empty reply: the output{suffix} is "<nooutput>"$'):
        call(name, row | {f'output{suffix}': '<nooutput>'})


def test_alpaca_system_and_history_come_before_the_question():
    row = {'instruction': 'q3', 'output': 'r3', 'system': 's', 'history': [['q1', 'r1'], ['q2', 'r2']]}
    assert [content for _, content in mapped('alpaca', row)] == ['s', 'q1', 'r1', 'q2', 'r2', 'q3', 'r3']
    for nothing in (None, '', '[]', []):
        assert len(mapped('alpaca', {**row, 'history': nothing, 'system': None})) == 2
    assert mapped('alpaca', {**row, 'history': json.dumps(row['history'])}) == mapped('alpaca', row)
    # A text of the data set is never taken for a name.
    assert mapped('alpaca', {**row, 'system': 'sql'}, system='coder')[0] == ('system', 'sql')
    assert mapped('alpaca', {**row, 'system': float('nan')}, system='coder')[0][1] == SYSTEM_PROMPTS['coder']


@pytest.mark.parametrize('history', ['[7]', '[', {'q': 'r'}, [['q']], ['qr'], [['q', 1]], [['q', None]], 7])
def test_alpaca_history_with_a_wrong_shape(history):
    with pytest.raises(RowError, match='^column `history` '):
        call('alpaca', {'instruction': 'q', 'output': 'r', 'history': history})


def test_colors_use_the_text_after_the_first_colon():
    for description in ('Blue: Hi', 'Hi', 'Hi:', ' Hi '):
        assert mapped('colors', {'description': description, 'color': 'Hello!'}, system=None) == HI
    assert mapped('colors', {'description': 'a: b: c', 'color': '#fff'}, system=None)[0] == ('user', 'b: c')


def test_sql_puts_the_table_before_the_question():
    row = {'context': 'CREATE TABLE a (b INT)', 'question': 'q', 'answer': 'r'}
    assert mapped('sql', row, system=None) == [('user', 'CREATE TABLE a (b INT)\nq'), ('assistant', 'r')]
    assert mapped('sql', {**row, 'context': ''}, system=None)[0] == ('user', 'q')


def test_openorca_system_text_of_the_row_comes_first():
    row = {'system_prompt': 'coder', 'question': 'Hi', 'response': 'Hello!'}
    assert mapped('openorca', row) == [('system', 'coder'), *HI]
    assert mapped('openorca', {**row, 'system_prompt': None}) == HI
    assert mapped('openorca', {**row, 'system_prompt': ''}, system='coder')[0] == ('system', SYSTEM_PROMPTS['coder'])


def test_columns_of_medqa_can_be_named_and_differ_in_case():
    assert mapped('medqa', {'q': ' Hi\n', 'a': 'Hello! '}, question='q', answer='a') == HI
    assert mapped('medqa', {'question': 'Hi', 'ANSWER': 'Hello!'}) == HI
    with pytest.raises(RowError, match='^no column `Answer`: the columns are question$'):
        call('medqa', {'question': 'Hi'})


def test_system_texts():
    assert list(SYSTEM_PROMPTS) == 'moss_sft alpaca arxiv_gentile colorist coder lawyer medical sql'.split()
    assert all(text == text.strip() for text in SYSTEM_PROMPTS.values())
    assert all(system_text(n) == text.replace('{bot_name}', 'MOSS') for n, text in SYSTEM_PROMPTS.items())
    assert '{bot_name}' in SYSTEM_PROMPTS['moss_sft'] and SYSTEM_PROMPTS['moss_sft'].count('\n') == 8
    for text in ('Be brief.', 'code r', 'Hello', '你是一名律师。', 'sql '):
        assert system_text(text) == text


def test_bundled_self_cognition_has_two_languages_and_no_placeholders():
    rows = [row for _, row in read_file(BUNDLED['self_cognition'])]
    talks = [checked(self_cognition_map_fn(row, name='Ada', author='Lovelace')).messages for row in rows]
    texts = [''.join(m['content'] for m in given) for given in talks]
    assert 60 <= len(rows) <= 100
    assert not [text for text in texts if re.search(r'[{}]|NAME|AUTHOR', text)]
    chinese = [text for text in texts if re.search('[一-鿿]', text)]
    assert 20 <= len(chinese) <= len(texts) - 20
    assert sum('Ada' in text for text in texts) > len(texts) / 2 and any('Lovelace' in text for text in texts)


def test_detection_without_a_fit_shows_columns_and_formats():
    with pytest.raises(DataError, match=r'(?s)file\.json .*prompt, reply.* alpaca .*map_fn'):
        resolve_row_mapper(Source(path='file.json'), heads({'prompt': 'x', 'reply': 'y'}))


def test_map_function_that_does_not_fit_names_the_one_that_does():
    rows = heads({'Question': 'x', 'Answer': 'y'})
    with pytest.raises(DataError, match=r"file\.json, row 1 .*`alpaca`: .*`instruction`.*map_fn='medqa'"):
        resolve_row_mapper(Source(path='file.json', map_fn='alpaca'), rows)


def test_first_rows_may_be_bad_if_one_of_them_fits():
    rows = heads({'output': '<nooutput>'}, {'instruction': 'Hi', 'output': 'Hello!'})
    given = resolve_row_mapper(Source(path='file.json', map_fn='alpaca'), rows)(rows[1].values)
    assert given.messages[1]['content'] == 'Hello!'


def test_unknown_map_function_and_wrong_arguments_are_errors():
    rows = heads({'instruction': 'x', 'output': 'y'})
    with pytest.raises(ConfigError, match=r'`alpacca`.*`alpaca`'):
        resolve_row_mapper(Source(path='file.json', map_fn='alpacca'), rows)
    with pytest.raises(DataError, match='`alpaca`: .*nme.*; see train_dataset.map_args'):
        resolve_row_mapper(Source(path='file.json', map_args={'nme': 1}), rows)


def test_list_dataset_format_shows_every_format(xtune):
    code, out, err = xtune('list-dataset-format')
    assert code == 0 and not err
    blocks = out.rstrip('\n').split('\n\n')
    assert [block.split('\n')[0] for block in blocks] == OURS
    for block, shown in zip(blocks, formats(), strict=True):
        lines = block.split('\n')
        assert lines[1] == f'  {shown.summary}'
        assert json.loads(lines[2].removeprefix('  row     ')) == shown.row
        assert lines[3].startswith('  result  ') and all(line.startswith(' ' * 10) for line in lines[4:])


@pytest.mark.parametrize('name', ['alpaca', 'Alpaca', 'alpaca_map_fn'])
def test_list_dataset_format_shows_one_format_alone(xtune, name):
    assert xtune('list-dataset-format', name) == (
        0,
        'alpaca\n'
        '  Instructions with an optional input, as in Alpaca and Open-Platypus.\n'
        '  row     {"instruction": "Add the numbers.", "input": "2, 3", "output": "5"}\n'
        '  result  user       "Add the numbers.\\n2, 3"\n'
        '          assistant  "5"\n',
        '',
    )


@pytest.mark.parametrize(
    ('pattern', 'names'),
    [
        ('alpac', 'alpaca alpaca_zh code_alpaca'),
        ('*_zh', 'alpaca_zh'),
        ('tokenized', 'tokenized'),
        ('m?ss*', 'moss_sft'),
    ],
)
def test_list_dataset_format_takes_a_pattern(xtune, pattern, names):
    code, out, _ = xtune('list-dataset-format', pattern)
    assert code == 0 and [line for line in out.splitlines() if line and line[0] != ' '] == names.split()


@pytest.mark.parametrize(('name', 'hint'), [('shargpt', 'did you mean `sharegpt`'), ('zzz', 'list-dataset-format')])
def test_list_dataset_format_without_a_match_says_what_to_do(xtune, name, hint):
    code, out, err = xtune('list-dataset-format', name)
    assert code == 2 and not out and f'`{name}`' in err and hint in err and 'Traceback' not in err


def test_list_dataset_format_needs_no_torch():
    code = "import sys\nfrom xtune.inspection.dataset_formats import formats\nformats()\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'False\n'
