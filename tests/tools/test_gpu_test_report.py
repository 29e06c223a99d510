"""tools/gpu_test_report.py: the results of a JUnit file on the page, and the age of the page."""

import subprocess
from collections import Counter

import pytest

JUNIT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="6" time="75.4">
<testcase classname="tests.models.test_a_gpu" name="test_one" time="1.5" />
<testcase classname="tests.models.test_a_gpu" name="test_two[x]" time="2.5"><failure message="m" /></testcase>
<testcase classname="tests.models.test_a_gpu" name="test_three"><skipped message="needs a&#10; thing" /></testcase>
<testcase classname="tests.engine.test_gpu" name="test_one" time="3"><skipped message="needs a&#10; thing" /></testcase>
<testcase classname="tests.engine.test_gpu" name="test_two" time="1.0" />
<testcase classname="tests.engine.test_gpu" name="test_two" time="1.0"><error message="teardown">t</error></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope='module')
def tool(tool):
    """The module."""
    return tool('gpu_test_report')


@pytest.fixture
def results(tool, tmp_path):
    (tmp_path / 'junit.xml').write_text(JUNIT)
    return tool.read(tmp_path / 'junit.xml')


def test_outcomes_are_counted_by_file(results):
    assert results.files == {
        'tests/models/test_a_gpu.py': Counter(passed=1, failed=1, skipped=1),
        'tests/engine/test_gpu.py': Counter(skipped=1, failed=1),  # its teardown failed
    }
    assert results.failed == ['tests/models/test_a_gpu.py::test_two[x]', 'tests/engine/test_gpu.py::test_two']
    assert list(results.skipped.values()) == [2] and results.duration == 75.4


def test_a_run_replaces_only_the_section_of_its_machine(tool, results):
    old = tool.INTRODUCTION + tool.NOT_RUN
    one = tool.with_section(old, tool.section(results, '1 x GPU', {'commit': '`aaa`'}))
    two = tool.with_section(one, tool.section(results, '2 x GPU', {'commit': '`bbb`'}))
    new = tool.with_section(two, tool.section(results, '1 x GPU', {'commit': '`ccc`'}))
    assert 'Not run yet' in old and 'Not run yet' not in one and two.startswith(one)
    assert new == two.replace('aaa', 'ccc') and tool.with_section(new, tool.section(results, '1 x GPU', {})) != new
    assert '| duration | 1 min 15 s |' in new and '| `tests/engine/test_gpu.py` | 0 | 1 | 1 | 5 |' in new
    assert '| all | 1 | 2 | 2 | 9 |' in new and '- 2: needs a thing\n' in new


def git(folder, *arguments):
    command = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit_files(folder, *paths):
    """Commit a change of each of `paths`; return the last commit."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f'{path} {len(path)}')
        git(folder, 'add', '-A'), git(folder, 'commit', '-qm', path)
    return git(folder, 'rev-parse', 'HEAD')


def test_commits_that_changed_gpu_code_are_counted(tool, results, tmp_path, monkeypatch):
    origin = tmp_path / 'origin'
    origin.mkdir()
    git(origin, 'init', '-q')
    recorded = commit_files(origin, 'README.md', 'xtune/models/a.py')
    commit_files(origin, 'docs/en/a.md', 'xtune/engine/b.py', 'xtune/data/c.py', 'tests/models/test_b_gpu.py')
    monkeypatch.setattr(tool, 'ROOT', origin)
    monkeypatch.delenv('XTUNE_COMMIT', raising=False)
    assert tool.commit() == git(origin, 'rev-parse', 'HEAD')
    (origin / 'xtune' / 'engine' / 'b.py').write_text('changed')
    assert tool.commit().endswith(' with changes')
    facts = {'commit': f'`{recorded} with changes`'}
    page = tool.with_section(tool.INTRODUCTION, tool.section(results, '1 x GPU', facts))
    [line] = tool.since(page)
    assert ' 2 commits ' in line and recorded[:12] in line
    git(tmp_path, 'clone', '-q', '--depth', '1', origin.as_uri(), 'shallow')
    monkeypatch.setattr(tool, 'ROOT', tmp_path / 'shallow')
    [line] = tool.since(page)
    assert 'not in this clone' in line and recorded in line
    (tmp_path / 'bare').mkdir()  # no git at all
    monkeypatch.setattr(tool, 'ROOT', tmp_path / 'bare')
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path))
    monkeypatch.setenv('XTUNE_COMMIT', 'abc')
    assert 'not in this clone' in tool.since(page)[0] and tool.commit() == 'abc'
    unknown = tool.with_section(tool.INTRODUCTION, tool.section(results, '1 x GPU', {'commit': '`unknown`'}))
    assert 'not in this clone' in tool.since(unknown)[0] and 'not run yet' in tool.since(tool.INTRODUCTION)[0]


def test_the_page_has_the_introduction_and_sections_of_the_tool(tool):
    assert tool.PAGE.read_text('utf-8').startswith(tool.INTRODUCTION) and tool.since(tool.PAGE.read_text('utf-8'))
