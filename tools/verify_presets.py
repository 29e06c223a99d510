"""Run every preset on a small copy of its model, and write docs/en/presets.md.

    python tools/verify_presets.py --jobs 2           all of them, in two processes
    python tools/verify_presets.py --only 'qwen*lora*'  these; other rows of the page stay as they are
    python tools/verify_presets.py --list             names and what they are made of
    python tools/verify_presets.py --shard 1/4 --out runs   a quarter, on each of four machines, and then
    python tools/verify_presets.py --merge --out runs       the page from what they found

Exits with 1 if a preset fails or was not run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from tqdm import tqdm

from xtune.config.compose import part_files
from xtune.config.presets import presets

ROOT = Path(__file__).resolve().parents[1]


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', metavar='PATTERN', default='', help='names that contain this, or match it as a glob')
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'work_dirs' / 'presets', help='folder (default: %(default)s)'
    )
    parser.add_argument('--jobs', type=int, default=1, help='processes (default: 1)')
    parser.add_argument('--shard', metavar='I/N', help='only the I-th of N parts, and no page')
    parser.add_argument('--merge', action='store_true', help='only write the page from the results in --out')
    parser.add_argument(
        '--whole', action='store_true', help='all stages of every preset, in about three times the time'
    )
    parser.add_argument('--list', action='store_true', help='only print the names')
    return parser.parse_args()


def chosen(pattern: str) -> list[str]:
    """Return the presets that fit `pattern`, in the order of their families."""
    return [name for name in presets() if pattern in name or fnmatch(name, pattern)]


def shares(names: Iterable[str], count: int) -> list[list[str]]:
    """Return `names` in `count` parts of nearly the same size; those of one model stay together and share its copy."""
    from verify.preset import Preset

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(Preset(name).parts['models'], []).append(name)
    parts: list[list[str]] = [[] for _ in range(count)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(parts, key=len).extend(group)
    return parts


def run_here(names: list[str], out: Path, shard: str, whole: bool) -> None:
    """Run presets in this process; results go to a file of the shard as they come."""
    from verify.chain import run
    from verify.preset import Preset, leading
    from verify.results import append

    file = out / f'results-{shard.replace("/", "-of-")}.jsonl'
    file.unlink(missing_ok=True)
    for name in tqdm(names, disable=None):
        result = run(Preset(name), out, whole or name in leading())
        append(file, result)
        if not result.passed:
            tqdm.write(f'{name}: {result.reason}')


def run_jobs(args: argparse.Namespace, names: list[str]) -> None:
    """Run presets in `args.jobs` processes; what each prints goes to a file in `args.out`."""
    from verify.results import read

    command = [
        sys.executable,
        __file__,
        '--out',
        str(args.out),
        '--only',
        args.only,
        *(['--whole'] if args.whole else []),
    ]
    logs = [(args.out / f'shard-{i + 1}.txt').open('w', encoding='utf-8') for i in range(args.jobs)]
    workers = [
        subprocess.Popen([*command, '--shard', f'{i + 1}/{args.jobs}'], stdout=log, stderr=log)
        for i, log in enumerate(logs)
    ]
    with tqdm(total=len(names), disable=None) as bar:
        while any(worker.poll() is None for worker in workers):
            time.sleep(1)
            bar.update(len(read(args.out)) - bar.n)
    for worker, log in zip(workers, logs, strict=True):
        log.close()
        if worker.returncode:
            sys.exit(f'a process ended with {worker.returncode}: {Path(log.name).read_text(encoding="utf-8")[-2000:]}')


def clear(out: Path) -> None:
    """Remove what an earlier run left in `out`: copies by an older table, results, logs; other files stay."""
    for name in ('models', 'data', 'runs', 'cache', 'tracebacks'):
        shutil.rmtree(out / name, ignore_errors=True)
    for old in (*out.glob('results-*.jsonl'), *out.glob('shard-*.txt')):
        old.unlink()


def report(out: Path, page: Path | None = None) -> int:
    """Write the page from the results in `out` and what it showed before; return the exit code."""
    from verify.page import earlier, write
    from verify.preset import Preset
    from verify.results import read

    now = [Preset(name).result() for name in presets()]
    # A row of the page stands only while the preset is made of the same things.
    shown = earlier()
    before = {one.name: shown[one.name] for one in now if one.name in shown and shown[one.name].parts == one.parts}
    found = {**before, **read(out)}
    results = [found.get(one.name, one) for one in now]
    without = [part for part in part_files('models') if part not in {one.model for one in results}]
    write(results, without, **({'path': page} if page else {}))
    failed = [one for one in results if not one.passed]
    for one in failed:
        print(f'{one.name}: {one.reason}')
    print(f'{len(results) - len(failed)} of {len(results)} presets passed')
    return 1 if failed else 0


def main() -> int:
    """Do what the command line says; return the exit code."""
    args = arguments()
    args.out = args.out.resolve()
    os.environ |= dict(HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false', XTUNE_CACHE=str(args.out / 'cache'))
    names = chosen(args.only)
    if args.merge:
        return report(args.out)
    if not names:
        sys.exit(f'no preset matches `{args.only}`; --list shows all')
    if args.list:
        print('\n'.join(names))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    if args.shard:
        number, count = map(int, args.shard.split('/'))
        run_here(shares(names, count)[number - 1], args.out, args.shard, args.whole)
        return 0
    clear(args.out)
    if args.jobs > 1:
        run_jobs(args, names)
    else:
        run_here(names, args.out, '1/1', args.whole)
    return report(args.out)


if __name__ == '__main__':
    sys.exit(main())
