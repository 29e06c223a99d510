"""Write the results of the GPU tests to docs/en/verified.md, or print the age of these results.

    python tools/gpu_test_report.py JUNIT.xml    # on the machine with the GPU; called by tools/gpu_tests.sh
    python tools/gpu_test_report.py --since      # on any machine with the git history; called by .ci/run

The page has one section per type of machine. A new run replaces the section of its machine only. `--since` prints for
each section the number of later commits that changed code that runs on GPUs.
"""

import argparse
import os
import platform
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'en' / 'verified.md'
INTRODUCTION = """# Verified on GPUs

The default test suite runs on CPUs. `bash tools/gpu_tests.sh` runs the tests that need a CUDA GPU and writes this page.
Each section is the last run on that type of machine. A test is skipped, with the reason, if the machine does not meet
its requirements.
"""
NOT_RUN = '\nNot run yet.\n'
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
class Outcomes:
    """The results of a test run: counts and seconds per file, failed tests, and skips per reason."""

    files: dict[str, Counter] = field(default_factory=dict)
    seconds: Counter = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)
    duration: float = 0.0


def read(junit: Path) -> Outcomes:
    """Return the results in a JUnit file of pytest; an error in a fixture is a failure."""
    results = Outcomes()
    for suite in ElementTree.parse(junit).getroot().iter('testsuite'):
        results.duration += float(suite.get('time', 0))
    # A test whose teardown fails has two entries; the worse outcome counts.
    severity = ('passed', 'skipped', 'failed')
    outcomes: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(junit).getroot().iter('testcase'):
        key = f'{case.get("classname", "").replace(".", "/")}.py', case.get('name', '')
        skip = case.find('skipped')
        failed = case.find('failure') is not None or case.find('error') is not None
        outcome = 'failed' if failed else 'skipped' if skip is not None else 'passed'
        results.seconds[key[0]] += float(case.get('time', 0))
        if skip is not None and key not in outcomes:
            results.skipped[skip.get('message', 'no reason given')] += 1
        outcomes[key] = max(outcome, outcomes.get(key, 'passed'), key=severity.index)
    for (file, name), outcome in outcomes.items():
        results.files.setdefault(file, Counter())[outcome] += 1
        if outcome == 'failed':
            results.failed.append(f'{file}::{name}')
    return results


def section(results: Outcomes, machine: str, facts: dict[str, str]) -> str:
    """Return the page section of a run on `machine`; `facts` are its date, commit and versions."""
    lines = [f'## {machine}', '', '| | |', '|---|---|']
    lines += [f'| {name} | {value} |' for name, value in facts.items()]
    minutes, seconds = divmod(round(results.duration), 60)
    lines += [f'| duration | {minutes} min {seconds} s |', '']
    lines += ['| tests | passed | failed | skipped | seconds |', '|---|---|---|---|---|']
    total: Counter = Counter()
    for file, counts in sorted(results.files.items()):
        total += counts
        lines.append(_row(f'`{file}`', counts, results.seconds[file]))
    lines.append(_row('all', total, sum(results.seconds.values())))
    lines += ['', 'The seconds are the sum of the durations of the tests, which run in parallel.']
    if results.failed:
        lines += ['', 'Failed:', '', *(f'- `{name}`' for name in sorted(results.failed))]
    if results.skipped:
        lines += ['', 'Skipped, by reason:', '']
        lines += [f'- {count}: {" ".join(reason.split())}' for reason, count in results.skipped.most_common()]
    return '\n'.join(lines) + '\n'


def _row(name: str, counts: Counter, seconds: float) -> str:
    cells = (counts['passed'], counts['failed'], counts['skipped'], round(seconds))
    return f'| {name} | ' + ' | '.join(map(str, cells)) + ' |'


def with_section(page: str, new: str) -> str:
    """Return the page with the section `new`, which replaces a section with the same heading."""
    sections = {}
    for part in page.split('\n## ')[1:]:
        sections[part.partition('\n')[0]] = '## ' + part.strip() + '\n'
    sections[new.partition('\n')[0].removeprefix('## ')] = new
    return INTRODUCTION + ''.join('\n' + sections[name] for name in sorted(sections))


def this_machine() -> tuple[str, dict[str, str]]:
    """Return the number and names of the GPUs, and the date, commit, driver and versions."""
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
    """Return XTUNE_COMMIT, else the commit of the checkout, with a mark if tracked files differ, else 'unknown'."""
    head = _output(['git', 'rev-parse', 'HEAD'])
    if os.environ.get('XTUNE_COMMIT') or head is None:
        return os.environ.get('XTUNE_COMMIT') or 'unknown'
    changed = _output(['git', 'status', '--porcelain', '--untracked-files=no', '--', 'xtune', 'tests', 'configs'])
    return head + (' with changes' if changed else '')


def since(page: str) -> list[str]:
    """Return one line per section of the page: the number of commits since its run that changed code for GPUs."""
    lines = []
    for part in page.split('\n## ')[1:]:
        machine, _, rest = part.partition('\n')
        recorded = rest.partition('| commit | `')[2].partition('`')[0].split(' ')[0]
        count = _output(['git', 'rev-list', '--count', f'{recorded}..HEAD', '--', *PATHS]) if recorded else None
        if count is None:
            lines.append(f'gpu tests: {machine}: commit {recorded or "unknown"} is not in this clone')
        else:
            lines.append(f'gpu tests: {machine}: {count} commits changed code that runs on GPUs since {recorded[:12]}')
    return lines or ['gpu tests: not run yet (bash tools/gpu_tests.sh)']


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main() -> None:
    """Write the section of a JUnit file, or print the age of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument('junit', nargs='?', type=Path, metavar='JUNIT.xml', help='JUnit file of pytest')
    action.add_argument('--since', action='store_true', help='print the number of commits since each run')
    args = parser.parse_args()
    page = PAGE.read_text(encoding='utf-8') if PAGE.exists() else INTRODUCTION + NOT_RUN
    if args.since:
        print('\n'.join(since(page)))
        return
    machine, facts = this_machine()
    PAGE.write_text(with_section(page, section(read(args.junit), machine, facts)), encoding='utf-8')
    print(f'{PAGE.relative_to(ROOT)} updated with the run on {machine}')


if __name__ == '__main__':
    main()
