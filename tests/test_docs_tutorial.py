"""The tutorial: its edits are valid options, and the commands without a full training run print the output it shows."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from xtune.data.readers import read_file

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'en' / 'tutorial.md').read_text('utf-8')
TASKS = dict(zip('AB', re.split(r'^## Task ', PAGE, flags=re.MULTILINE)[1:], strict=True))
EXECUTED = ('list-dataset-format', 'copy-cfg', 'check-custom-dataset', 'log-dataset')


@pytest.fixture
def checkout(tmp_path, monkeypatch, tiny_model):
    """Change to a folder with docs/examples, and with a tiny model (which has SmolLM2's tokenizer) in its place."""
    shutil.copytree(ROOT / 'docs' / 'examples', tmp_path / 'docs' / 'examples')
    shutil.copytree(tiny_model, tmp_path / 'SmolLM2-135M-Instruct')
    monkeypatch.chdir(tmp_path)


def edits(text):
    """Return the options in the table of a task as arguments of --cfg-options."""
    return [f'{name}={value}' for name, value in re.findall(r'^\| `([a-z_.]+)` \| `(.+?)` \|', text, re.MULTILINE)]


def commands(text):
    """Return (words, output lines, True if it comes after the edits) of each command of a task."""
    found = []
    table = re.search(r'^\| option ', text, re.MULTILINE)
    for block in re.finditer(r'^```console\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
        edited = table is not None and block.start() > table.start()
        for command in re.split(r'^\$ ', block[1], flags=re.MULTILINE)[1:]:
            line, *output = command.splitlines()
            found.append((shlex.split(line), [text for text in output if text not in ('', '...')], edited))
    return found


def test_the_table_shows_the_first_rows_of_the_workbook():
    rows = [row for _, row in read_file(ROOT / 'docs' / 'examples' / 'medications.xlsx')]
    assert f'has {len(rows)} rows and {len(rows[0])} columns' in PAGE.replace('four', '4')
    for cells in (rows[0], rows[0].values(), rows[1].values()):
        assert f'| {" | ".join(cells)} |\n' in PAGE


@pytest.mark.parametrize('task', TASKS)
def test_the_commands_print_the_output_of_the_page(task, checkout, xtune):
    executed = []
    for (program, *words), output, edited in commands(TASKS[task]):
        if program == 'mv':
            shutil.move(*words)
        elif program == 'xtune' and words[0] in EXECUTED:
            options = ['--cfg-options', *edits(TASKS[task])] if edited else []
            code, out, err = xtune(*words, *options)
            assert code == 0, err
            assert not [line for line in output if line not in out.splitlines()], out
            executed.append(words[0])
    assert {'copy-cfg', 'check-custom-dataset'} <= set(executed)


def test_a_step_of_each_task_trains(checkout, xtune):
    for task, text in TASKS.items():
        for words, _, edited in commands(text):
            if words[:2] == ['xtune', 'copy-cfg'] or words[0] == 'mv':
                xtune(*words[1:]) if words[0] == 'xtune' else shutil.move(*words[1:])
            elif words[:2] == ['xtune', 'train']:
                options = [*(edits(text) if edited else []), 'schedule.max_steps=1', 'chat_samples.every_steps=None']
                code, out, err = xtune(*words[1:], '--cfg-options', *options)
                assert code == 0 and 'iter_1.pth' in out, f'task {task}: {err}'
