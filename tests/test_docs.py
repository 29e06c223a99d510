"""The docs agree with the code: the config page is current; commands, presets, paths and links exist; the architecture
page lists every module. Both languages have the same structure, code and commands."""

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import pytest
from test_layers_of_imports import LAYERS

from xtune.cli import build_parser
from xtune.commands import COMMANDS
from xtune.config.preset_names import parse
from xtune.config.presets import presets

pytestmark = pytest.mark.integration

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
                call = re.match(r'(?:[A-Z_]+=\S* )*(?:(?:torchrun|srun|mpirun) .*?)?xtune (.*)', part)
                if call:
                    yield shlex.split(call[1], comments=True)


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
    for key in ('skip', 'last'):  # options of Float8Config, described in its docstring
        assert f'\n| `{key}` | ' in reference.page().partition('\n## quantization\n')[2].partition('\n## ')[0]


def test_the_tables_about_devices_are_current(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    devices = tool('devices_page')
    for page in devices.PAGES:
        current = page.read_text('utf-8') == devices.with_tables(page.read_text('utf-8'))
        assert current, 'run python tools/devices_page.py'


def test_commands_are_extracted_from_shell_blocks():
    text = '```bash\n$ A=1 xtune env | tee x\nxtune 0.1.0\n```\n```console\nxtune chat a \\\n  --bits 4  # why\n```\n'
    text += '```bash\nA=1 B=2 xtune env\ntorchrun --nnodes 2 -m xtune train x\n```\n'
    assert list(commands(text)) == [['env'], ['chat', 'a', '--bits', '4'], ['env'], ['train', 'x']]
    assert CALLS


@pytest.mark.parametrize(('page', 'call'), CALLS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_command_line_parses(page, call):
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            build_parser().parse_args(call)
    except SystemExit as stopped:  # --help and --version exit with 0
        assert not stopped.code, f'{page}: xtune {shlex.join(call)}\n{output.getvalue()}'


@each_page
def test_commands_in_running_text_exist(page):
    named = set(re.findall(r'`xtune ([a-z][\w-]*)', FENCE.sub('', page.read_text(encoding='utf-8'))))
    assert not named - set(COMMANDS)


@each_page
def test_presets_exist(page):
    text = page.read_text(encoding='utf-8')
    named = set(re.findall(r'\b[a-z]\w*?_(?:full|lora|qlora)_\w+?_e\d+(?=_copy\b|\b)', text))
    for name in named - set(presets()):
        parse(name)  # not listed, but composed of compatible parts


@each_page
def test_no_path_of_one_machine_is_named(page):
    paths = re.findall(r'(?<![\w.~/])/(?:work|root|tmp)\b\S*', page.read_text(encoding='utf-8'))
    assert not paths


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
    """Return (level, code blocks, bullets, table rows) of each heading and the text below it."""
    text = FENCE.sub('§\n', page.read_text(encoding='utf-8'))
    parts = re.split(r'^(#+) .*$', text, flags=re.MULTILINE)[1:]
    markers = ('§', '- ', '|')
    return [
        (level, *(sum(line.startswith(marker) for line in body.splitlines()) for marker in markers))
        for level, body in zip(parts[::2], parts[1::2], strict=True)
    ]


@pytest.mark.parametrize('page', TRANSLATED, ids=lambda path: path.name)
def test_both_languages_have_the_same_structure_and_code(page):
    english = ROOT / 'docs' / 'en' / page.name
    assert outline(page) == outline(english)
    assert FENCE.findall(page.read_text('utf-8')) == FENCE.findall(english.read_text('utf-8'))
    code = [set(re.findall(r'`([^`\n]+)`', FENCE.sub('', path.read_text('utf-8')))) for path in (page, english)]
    assert code[0] == code[1]


def test_pages_are_translated():
    assert {'data.md', 'devices.md', 'templates.md'} <= {page.name for page in TRANSLATED}


def test_the_architecture_page_lists_every_module():
    text = (ROOT / 'docs' / 'en' / 'architecture.md').read_text('utf-8')
    tree = text.partition('\n## The package tree\n')[2]
    listed = re.findall(r'^\| `(xtune/\S+\.py)` \|', tree, re.MULTILINE)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'xtune').rglob('*.py')}
    modules -= {name for name in modules if name.endswith('/__init__.py')}
    assert sorted(listed) == sorted(modules)
    assert {name.rstrip('/') for name in re.findall(r'`(xtune/[\w/]+/)`', text)} <= {
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'xtune').rglob('*') if path.is_dir()
    }


def test_the_architecture_page_has_the_layers_of_the_import_test():
    text = (ROOT / 'docs' / 'en' / 'architecture.md').read_text('utf-8')
    table = text.partition('\n## Layers\n')[2].partition('\n## ')[0]
    rows = [re.findall(r'`(\w+)`', line.split('|')[1]) for line in table.splitlines() if line.startswith('| `')]
    assert [tuple(row) for row in rows] == LAYERS
