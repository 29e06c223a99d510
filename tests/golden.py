"""The golden file: tests/golden_messages.txt has the messages that users read, in full and in one place.

`golden('package.problem', text)` compares a text with its entry. A dict of texts makes one entry with a paragraph per
key, for a table of cases. Paths and other values that change between machines become placeholders such as `<tmp>`.

After an intended change of a message: `python -m pytest -n 0 --update-golden TESTS`, then review the diff of the file.
"""

import ast
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

FILE = Path(__file__).with_name('golden_messages.txt')
REPOSITORY, HOME = str(FILE.parents[1]), str(Path.home())
# Values that depend on the machine, and their placeholders.
VARIABLE = (
    (r'\d[\d.,]* (?=[KMGT]i?B free)', '<n> '),
    (r'(?<=process )\d+', '<pid>'),
    (r'(?<=Known: )\w+(, \w+)*(?=\. List)', '<names>'),  # other tests register more
    (r'(?<=python)3\.\d+', '<version>'),
)


def pytest_addoption(parser):
    """Add the option that rewrites entries."""
    parser.addoption('--update-golden', action='store_true', help='rewrite the entries of tests/golden_messages.txt')


def pytest_configure(config):
    """Refuse to rewrite the file from several processes."""
    if config.getoption('--update-golden') and config.getoption('numprocesses', None):
        raise pytest.UsageError('--update-golden needs one process: add -n 0')


@pytest.fixture
def golden(request, tmp_path, tmp_path_factory):
    """Return a function that compares a text, or texts by case, with the entry of an id."""
    session = re.escape(str(tmp_path_factory.getbasetemp()))
    places = ((re.escape(str(tmp_path)), '<tmp>'), (rf'{session}/([a-z_]+?)\d+(?=/|\b)', r'<\1>'))

    def compare(name: str, text: object, replace: Mapping[str, str] | None = None) -> bool:
        text = with_cases(text) if isinstance(text, Mapping) else str(text)
        for value, placeholder in (replace or {}).items():
            text = text.replace(value, placeholder)
        text = stable(text, places)
        if request.config.getoption('--update-golden'):
            write({**entries(), name: text})
            return True
        known = entries()
        hint = f'{name}: if the change is intended, run `python -m pytest -n 0 --update-golden {request.node.nodeid}`'
        assert name in known, f'no entry {hint}'
        assert known[name] == text, f'{hint}\n{difference(known[name], text)}'
        return True

    return compare


def short(value: object) -> str:
    """Return the beginning and the end of a value's repr, as the name of a case."""
    text = repr(value)
    return text if len(text) <= 150 else f'{text[:70]} ... {text[-70:]}'


def with_cases(texts: Mapping[object, object]) -> str:
    """Return one paragraph per case: its name, then its text, indented."""
    indented = {case: re.sub('^', '    ', str(text).strip('\n'), flags=re.M) for case, text in texts.items()}
    return '\n'.join(f'{case}\n{text}' for case, text in indented.items())


def stable(text: str, places: tuple[tuple[str, str], ...] = ()) -> str:
    """Return a text in which values that depend on the machine are placeholders."""
    known = ((re.escape(REPOSITORY), '<repository>'), (rf'{re.escape(HOME)}\b', '<home>'))
    for pattern, placeholder in (*places, *known, *VARIABLE):
        text = re.sub(pattern, placeholder, text)
    lines = '\n'.join(line.rstrip() for line in text.splitlines()).strip('\n')
    assert not re.search('^### ', lines, re.M), 'a text of the golden file has no line that begins with ###'
    return lines


def entries(file: Path = FILE) -> dict[str, str]:
    """Return the texts of a golden file by id."""
    _, *sections = re.split('^### ', file.read_text(encoding='utf-8'), flags=re.M)
    parts = (section.partition('\n') for section in sections)
    return {name: text.strip('\n') for name, _, text in parts}


def write(texts: Mapping[str, str], file: Path = FILE) -> None:
    """Write the entries below the introduction of a golden file, sorted by id."""
    introduction = re.split('^### ', file.read_text(encoding='utf-8'), flags=re.M)[0].strip('\n')
    sections = (f'### {name}\n{texts[name]}' for name in sorted(texts))
    partial = file.with_name(f'.{file.name}.{os.getpid()}')
    partial.write_text('\n\n'.join((introduction, *sections)) + '\n', encoding='utf-8')
    partial.replace(file)


def difference(expected: str, text: str) -> str:
    """Return the lines in which two texts differ."""
    return '\n'.join(difflib.unified_diff(expected.splitlines(), text.splitlines(), 'golden', 'now', lineterm='', n=1))


def used_ids(folder: Path = FILE.parent) -> Iterator[str]:
    """Yield the literal ids in calls of `golden` below a folder."""
    for file in folder.rglob('*.py'):
        source = file.read_text(encoding='utf-8')
        for node in ast.walk(ast.parse(source if 'golden(' in source else '')):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'golden':
                assert isinstance(node.args[0], ast.Constant), f'{file}:{node.lineno}: the id of golden() is a literal'
                yield node.args[0].value
