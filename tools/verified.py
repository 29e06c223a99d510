"""Write what the GPU tests found to docs/en/verified.md, or say how old that is.

    python tools/verified.py JUNIT.xml    # tools/gpu_tests.sh calls it on the machine with the GPU
    python tools/verified.py --since      # .ci/run calls it: commits since then that touched code that runs on GPUs

The page has a section for each kind of machine. A new run replaces the section of its kind and leaves the others.
"""

import os
import platform
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'en' / 'verified.md'
INTRODUCTION = """# Verified on GPUs

The default test suite runs on CPUs. The tests that need a CUDA GPU run with `bash tools/gpu_tests.sh` on any machine
that has one; the script writes this page. Each section is the last run on that kind of machine. A test that needs what
a machine lacks is skipped there, with the reason.
"""
NEVER = '\nNot run yet.\n'
PACKAGES = ('torch', 'triton', 'transformers', 'peft', 'bitsandbytes', 'accelerate', 'deepspeed', 'mmengine-lite')
GPU_CODE = (
    'compat',
    'engine',
    'export',
    'inference',
    'methods',
    'models',
    'ops',
    'optimizations',
    'parallel',
    'planning',
    'tasks',
    'chat',
)
PATHS = [*(f'xtune/{name}' for name in GPU_CODE), 'requirements/runtime.txt', ':(glob)tests/**/test_*gpu*.py']


@dataclass
class Found:
    """What a run of tests found: counts and seconds by file, failed tests, and skips by reason."""

    files: dict[str, Counter] = field(default_factory=dict)
    seconds: Counter = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)
    duration: float = 0.0


def read(junit: Path) -> Found:
    """Return what the JUnit file of pytest holds; an error in a fixture counts as a failure."""
    found = Found()
    for suite in ElementTree.parse(junit).getroot().iter('testsuite'):
        found.duration += float(suite.get('time', 0))
    # A test whose teardown fails as well has two entries: the worse counts.
    rank = ('passed', 'skipped', 'failed')
    outcomes: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(junit).getroot().iter('testcase'):
        key = f'{case.get("classname", "").replace(".", "/")}.py', case.get('name', '')
        skip = case.find('skipped')
        bad = case.find('failure') is not None or case.find('error') is not None
        outcome = 'failed' if bad else 'skipped' if skip is not None else 'passed'
        found.seconds[key[0]] += float(case.get('time', 0))
        if skip is not None and key not in outcomes:
            found.skipped[skip.get('message', 'no reason given')] += 1
        outcomes[key] = max(outcome, outcomes.get(key, 'passed'), key=rank.index)
    for (file, name), outcome in outcomes.items():
        found.files.setdefault(file, Counter())[outcome] += 1
        if outcome == 'failed':
            found.failed.append(f'{file}::{name}')
    return found


def section(found: Found, machine: str, facts: dict[str, str]) -> str:
    """Return the section of a run on `machine`, which `facts` describe."""
    lines = [f'## {machine}', '', '| | |', '|---|---|']
    lines += [f'| {name} | {value} |' for name, value in facts.items()]
    minutes, seconds = divmod(round(found.duration), 60)
    lines += [f'| duration | {minutes} min {seconds} s |', '']
    lines += ['| tests | passed | failed | skipped | seconds |', '|---|---|---|---|---|']
    total: Counter = Counter()
    for file, counts in sorted(found.files.items()):
        total += counts
        lines.append(_row(f'`{file}`', counts, found.seconds[file]))
    lines.append(_row('all', total, sum(found.seconds.values())))
    lines += ['', 'The seconds add up what each test took; several tests run at a time.']
    if found.failed:
        lines += ['', 'Failed:', '', *(f'- `{name}`' for name in sorted(found.failed))]
    if found.skipped:
        lines += ['', 'Skipped, by reason:', '']
        lines += [f'- {count}: {" ".join(reason.split())}' for reason, count in found.skipped.most_common()]
    return '\n'.join(lines) + '\n'


def _row(name: str, counts: Counter, seconds: float) -> str:
    cells = (counts['passed'], counts['failed'], counts['skipped'], round(seconds))
    return f'| {name} | ' + ' | '.join(map(str, cells)) + ' |'


def with_section(page: str, new: str) -> str:
    """Return the page with the section of the same heading replaced, or added at the end."""
    sections = {}
    for part in page.split('\n## ')[1:]:
        sections[part.partition('\n')[0]] = '## ' + part.strip() + '\n'
    sections[new.partition('\n')[0].removeprefix('## ')] = new
    return INTRODUCTION + ''.join('\n' + sections[name] for name in sorted(sections))


def this_machine() -> tuple[str, dict[str, str]]:
    """Return how many of which GPU there are, and the date, commit, driver and versions."""
    import torch

    from xtune.inspection.environment import installed

    cuda = torch.cuda
    names = Counter(cuda.get_device_name(index) for index in range(cuda.device_count()))
    machine = ', '.join(f'{count} x {name}' for name, count in names.items()) or 'no GPU'
    query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    driver = (_output(query) or 'unknown').splitlines()[0]
    facts = {'date': date.today().isoformat(), 'commit': f'`{commit()}`', 'driver': driver}
    facts |= {'CUDA': str(torch.version.cuda), 'python': platform.python_version()}
    return machine, facts | {name: installed(name) or 'not installed' for name in PACKAGES}


def commit() -> str:
    """Return XTUNE_COMMIT, else the commit of the checkout, marked where tracked files differ, else 'unknown'."""
    head = _output(['git', 'rev-parse', 'HEAD'])
    if os.environ.get('XTUNE_COMMIT') or head is None:
        return os.environ.get('XTUNE_COMMIT') or 'unknown'
    changed = _output(['git', 'status', '--porcelain', '--untracked-files=no', '--', 'xtune', 'tests', 'configs'])
    return head + (' with changes' if changed else '')


def since(page: str) -> list[str]:
    """Return a line for each section of the page: how many commits touched code that runs on GPUs since its run."""
    lines = []
    for part in page.split('\n## ')[1:]:
        machine, _, rest = part.partition('\n')
        recorded = rest.partition('| commit | `')[2].partition('`')[0].split(' ')[0]
        count = _output(['git', 'rev-list', '--count', f'{recorded}..HEAD', '--', *PATHS]) if recorded else None
        if count is None:
            lines.append(f'gpu tests: {machine}: commit {recorded or "unknown"}, which this clone does not hold')
        else:
            lines.append(f'gpu tests: {machine}: {count} commits touched code that runs on GPUs since {recorded[:12]}')
    return lines or ['gpu tests: not run yet (bash tools/gpu_tests.sh)']


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main(argument: str) -> None:
    """Write the section of the JUnit file `argument`, or with '--since' print the age of the page."""
    page = PAGE.read_text(encoding='utf-8') if PAGE.exists() else INTRODUCTION + NEVER
    if argument == '--since':
        print('\n'.join(since(page)))
        return
    machine, facts = this_machine()
    PAGE.write_text(with_section(page, section(read(Path(argument)), machine, facts)), encoding='utf-8')
    print(f'{PAGE.relative_to(ROOT)} now has the run on {machine}')


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
