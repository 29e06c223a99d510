"""The docs agree with the code: the config page is current, commands, presets, paths and links in them exist. Both
languages say the same."""

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import pytest

from xtune.cli import build_parser
from xtune.commands import COMMANDS
from xtune.config.preset_names import parse
from xtune.config.presets import presets

ROOT = Path(__file__).parents[1]
TOP = [ROOT / name for name in ('README.md', 'README_zh.md', 'CONTRIBUTING.md')]
DOCS = [path for path in TOP if path.is_file()] + sorted((ROOT / 'docs').rglob('*.md'))
each_page = pytest.mark.parametrize('page', [*DOCS, ROOT / 'CHANGELOG.md'], ids=lambda path: path.name)
FENCE = re.compile(r'^( *)```(\w*)\n(.*?)^\1```', re.MULTILINE | re.DOTALL)
SHELLS = ('bash', 'sh', 'shell', 'console', '')
TRANSLATED = sorted((ROOT / 'docs' / 'zh').glob('*.md'))


def commands(text):
    """Yield the arguments of each `xtune` call in the shell blocks of a page, without pipes and redirections."""
    for _, language, block in FENCE.findall(text):
        lines = [line.strip() for line in block.replace('\\\n', ' ').splitlines()]
        if any(line.startswith('$ ') for line in lines):  # the other lines are output
            lines = [line for line in lines if line.startswith('$ ')]
        for line in lines if language in SHELLS else ():
            for part in re.split(r'\s(?:\|\|?|&&?|;|\d?>>?)\s', line.removeprefix('$ ')):
                called = re.match(r'(?:[A-Z_]+=\S* )*(?:(?:torchrun|srun|mpirun) .*?)?xtune (.*)', part)
                if called:
                    yield shlex.split(called[1], comments=True)


CALLS = [(page.name, call) for page in DOCS for call in commands(page.read_text(encoding='utf-8'))]


def tool(name):
    """Return tools/`name`.py as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_config_page_is_current():
    reference = tool('config_reference')
    current = reference.PAGE.read_text(encoding='utf-8') == reference.page()
    assert current, 'run python tools/config_reference.py'
    for key in ('skip', 'last'):  # of a type of xtune's own, from its docstring
        assert f'\n| `{key}` | ' in reference.page().partition('\n## quantization\n')[2].partition('\n## ')[0]


def test_the_tables_about_devices_are_current(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    made = tool('devices_page')
    for page in made.PAGES:
        assert page.read_text('utf-8') == made.with_tables(page.read_text('utf-8')), 'run python tools/devices_page.py'


def test_commands_are_found():
    text = '```bash\n$ A=1 xtune env | tee x\nxtune 0.1.0\n```\n```console\nxtune chat a \\\n  --bits 4  # why\n```\n'
    text += '```bash\nA=1 B=2 xtune env\ntorchrun --nnodes 2 -m xtune train x\n```\n'
    assert list(commands(text)) == [['env'], ['chat', 'a', '--bits', '4'], ['env'], ['train', 'x']]
    assert CALLS


@pytest.mark.parametrize(('page', 'call'), CALLS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_command_line_parses(page, call):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            build_parser().parse_args(call)
    except SystemExit as stopped:  # --help and --version leave with 0
        assert not stopped.code, f'{page}: xtune {shlex.join(call)}\n{said.getvalue()}'


@each_page
def test_commands_in_running_text_exist(page):
    named = set(re.findall(r'`xtune ([a-z][\w-]*)', FENCE.sub('', page.read_text(encoding='utf-8'))))
    assert not named - set(COMMANDS)


@each_page
def test_presets_exist(page):
    text = page.read_text(encoding='utf-8')
    named = set(re.findall(r'\b[a-z]\w*?_(?:full|lora|qlora)_\w+?_e\d+(?=_copy\b|\b)', text))
    for name in named - set(presets()):
        parse(name)  # not listed, but made of parts that fit


@each_page
def test_no_path_of_one_machine_is_named(page):
    found = re.findall(r'(?<![\w.~/])/(?:work|root|tmp)\b\S*', page.read_text(encoding='utf-8'))
    assert not found


def anchors(page):
    titles = re.findall(r'^#+ (.*)$', FENCE.sub('', page.read_text(encoding='utf-8')), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}


@each_page
def test_links_to_files_and_headings_lead_somewhere(page):
    text = page.read_text(encoding='utf-8')
    for target in re.findall(r'\]\(([^)\s]+)\)', FENCE.sub('', text)):
        name, _, anchor = target.partition('#')
        if '://' in target or target.startswith('mailto:'):
            continue
        other = page.parent / name if name else page
        assert other.exists() and (not anchor or anchor in anchors(other)), target


def outline(page):
    """Return of each heading its level, and how many blocks, bullets and rows of tables stand below it."""
    text = FENCE.sub('§\n', page.read_text(encoding='utf-8'))
    parts = re.split(r'^(#+) .*$', text, flags=re.MULTILINE)[1:]
    signs = ('§', '- ', '|')
    return [
        (level, *(sum(line.startswith(sign) for line in body.splitlines()) for sign in signs))
        for level, body in zip(parts[::2], parts[1::2], strict=True)
    ]


@pytest.mark.parametrize('page', TRANSLATED, ids=lambda path: path.name)
def test_both_languages_say_the_same(page):
    english = ROOT / 'docs' / 'en' / page.name
    assert outline(page) == outline(english)
    assert FENCE.findall(page.read_text('utf-8')) == FENCE.findall(english.read_text('utf-8'))
    code = [set(re.findall(r'`([^`\n]+)`', FENCE.sub('', path.read_text('utf-8')))) for path in (page, english)]
    assert code[0] == code[1]


def test_pages_are_translated():
    assert {'data.md', 'devices.md', 'templates.md'} <= {page.name for page in TRANSLATED}
