"""The page about data shows the files of docs/examples; its commands run and print the output that it shows."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.data.readers import read_file

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'en' / 'data.md').read_text('utf-8')
FENCE = re.compile(r'^```(\w+)\n(.*?)^```', re.MULTILINE | re.DOTALL)
EXAMPLES = Path('docs/examples')
# Data file -> its detected format.
FORMATS = {
    'alpaca.csv': 'alpaca',
    'alpaca.json': 'alpaca',
    'faults.jsonl': 'medqa',
    'function_call.json': 'sharegpt',
    'medications.xlsx': 'medqa',
    'messages.jsonl': 'openai',
    'notes.jsonl': 'medqa',
    'preference.jsonl': 'preference',
    'pretrain.txt': 'text',
    'questions.xlsx': 'medqa',
    'sharegpt.json': 'sharegpt',
    'support/train.jsonl': 'prompt_response',
    'support/validation.jsonl': 'prompt_response',
    'tickets.jsonl': 'help_desk',
    'tokens.jsonl': 'tokenized',
    'tools.json': 'openai',
}
# Options of a file in addition to its path.
OPTIONS = {
    'faults.jsonl': ['data.max_bad_rows=0.5'],
    'pretrain.txt': ['chat_template=plain'],
    'tickets.jsonl': ['train_dataset.map_fn=help_desk', 'custom_imports=[my_data]'],
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Change to a folder with a copy of docs/examples."""
    shutil.copytree(ROOT / EXAMPLES, tmp_path / EXAMPLES)
    monkeypatch.chdir(tmp_path)


def names():
    files = (path.relative_to(ROOT / EXAMPLES) for path in (ROOT / EXAMPLES).rglob('*') if path.is_file())
    return {path.as_posix() for path in files if '__pycache__' not in path.parts}


def shown(name):
    """Return the code blocks and tables that follow the name of a file."""
    heading = rf'`{re.escape(f"{EXAMPLES.as_posix()}/{name}")}`[^`]*:\n\n'
    matches = re.findall(heading + r'(?:```\w+\n(.*?)^```|((?:^\|[^\n]*\n)+))', PAGE, re.MULTILINE | re.DOTALL)
    return [block or table for block, table in matches]


def as_table(path):
    rows = [row for _, row in read_file(path)]
    lines = [list(rows[0]), ['---', '---'], *(row.values() for row in rows)]
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines).replace('| --- | --- |', '|---|---|')


def steps():
    """Return the commands of the page in order, each with the output blocks that follow it: (words, blocks)."""
    commands: list[tuple[list[str], list[str]]] = []
    previous = ''
    for language, block in FENCE.findall(PAGE):
        if language == 'bash':
            commands += [(shlex.split(line), []) for line in block.replace('\\\n', ' ').splitlines()]
        elif language == 'text' and previous == 'bash':
            commands[-1][1].append(block)
        previous = language
    return commands


def test_every_example_is_shown_unchanged():
    assert names() == {*FORMATS, 'mixture.py', 'my_data.py'}
    for name in names():
        path = ROOT / EXAMPLES / name
        if path.parent.name == 'support':
            assert f'{EXAMPLES.as_posix()}/support ' in PAGE
            continue
        if name == 'medications.xlsx':  # shown in the tutorial
            continue
        assert len(shown(name)) == 1, name
        [block] = shown(name)
        assert block == as_table(path) if path.suffix == '.xlsx' else block in path.read_text('utf-8'), name


@pytest.mark.parametrize('name', FORMATS)
def test_every_example_is_ready_to_train(name, checkout, xtune, tiny_model):
    shutil.copy(EXAMPLES / 'my_data.py', '.')
    path = (EXAMPLES / name).as_posix()
    options = ['train_dataset.map_fn=auto', *OPTIONS.get(name, []), f'train_dataset.path={path}']
    preset = 'smollm2_135m_lora_alpaca_e1'
    code, out, err = xtune('check-custom-dataset', preset, '--cfg-options', f'base_model={tiny_model}', *options)
    assert code == 0, err
    assert f'{path} as {FORMATS[name]}: ' in out and 'verdict    ready' in out


def test_the_token_ids_of_the_example_decode_to_its_text(tokenizer):
    first, second = (row for _, row in read_file(ROOT / EXAMPLES / 'tokens.jsonl'))
    ids = [first['input_ids'], [abs(i) for i in second['tokens']]]
    assert [tokenizer.decode(i).splitlines()[-1] for i in ids] == ['Hello!<|im_end|>', 'See you!<|im_end|>']
    assert [tokenizer(tokenizer.decode(i), add_special_tokens=False)['input_ids'] for i in ids] == ids


def test_the_example_config_loads(checkout):
    job = wire(load(EXAMPLES / 'mixture.py', check_types=True))
    assert [source.weight for source in job.train_sources] == [2, 1, 1]
    assert job.val_sources[0].split == 'validation'


def test_the_commands_run_and_print_the_output_of_the_page(checkout, xtune, tiny_model):
    for (program, *words), texts in steps():
        if program == 'cp':
            shutil.copy(*words)
            continue
        options = [] if words[0] == 'list-dataset-format' else ['--cfg-options', f'base_model={tiny_model}']
        if words[0] == 'train':
            options += ['schedule.max_steps=1', 'max_length=64', 'chat_samples.every_steps=None']
        code, out, err = xtune(*words, *options)
        is_error = any(text.startswith('error: ') for text in texts)
        assert code == (2 if is_error else 0), f'{shlex.join(words)}\n{err}'
        for text in texts:
            assert text in (err if is_error else out), f'{shlex.join(words)}\n{out}{err}'
    assert Path('page.html').is_file()
