"""Run every preset on a small random copy of its model, and write the results to docs/en/presets.md.

    python tools/verify_presets.py --jobs 2                 all presets, in two processes
    python tools/verify_presets.py --only 'qwen*lora*'      some presets; the other rows of the page are unchanged
    python tools/verify_presets.py --list                   print the names of the presets
    python tools/verify_presets.py --shard 1/4 --out runs   one of four parts, on each of four machines, followed by
    python tools/verify_presets.py --merge --out runs       the page from the results of all parts

Runs on a CPU without downloads. Prints each failure with its reason, and the number of presets that passed. Exits with
1 if a preset failed or was not run.
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
    parser.add_argument(
        '--only', metavar='PATTERN', default='', help='run presets whose names contain or match this glob'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'work_dirs' / 'presets',
        help='folder for copies and results (default: %(default)s)',
    )
    parser.add_argument('--jobs', type=int, default=1, help='processes (default: 1)')
    parser.add_argument('--shard', metavar='I/N', help='run only the I-th of N parts and write no page')
    parser.add_argument('--merge', action='store_true', help='run nothing; write the page from the results in --out')
    parser.add_argument(
        '--all-stages', action='store_true', help='run all stages of every preset; takes about three times as long'
    )
    parser.add_argument('--list', action='store_true', help='run nothing; print the names')
    return parser.parse_args()


def matching_presets(pattern: str) -> list[str]:
    """Return the presets that match `pattern`, ordered by family."""
    return [name for name in presets() if pattern in name or fnmatch(name, pattern)]


def split(names: Iterable[str], count: int) -> list[list[str]]:
    """Return `names` in `count` lists of similar size; presets of one model stay together and share its copy."""
    from preset_checks.preset import Preset

    by_model: dict[str, list[str]] = {}
    for name in names:
        by_model.setdefault(Preset(name).parts['models'], []).append(name)
    shards: list[list[str]] = [[] for _ in range(count)]
    for group in sorted(by_model.values(), key=len, reverse=True):
        min(shards, key=len).extend(group)
    return shards


def run_in_process(names: list[str], out: Path, shard: str, all_stages: bool) -> None:
    """Run presets in this process and append each result to the file of `shard`."""
    from preset_checks.preset import Preset, first_of_each_combination
    from preset_checks.results import append
    from preset_checks.stages import run_stages

    file = out / f'results-{shard.replace("/", "-of-")}.jsonl'
    file.unlink(missing_ok=True)
    for name in tqdm(names, disable=None):
        result = run_stages(Preset(name), out, all_stages or name in first_of_each_combination())
        append(file, result)
        if not result.passed:
            tqdm.write(f'{name}: {result.reason}')


def run_jobs(args: argparse.Namespace, names: list[str]) -> None:
    """Run presets in `args.jobs` processes; the output of each goes to a file in `args.out`."""
    from preset_checks.results import read

    command = [
        sys.executable,
        __file__,
        '--out',
        str(args.out),
        '--only',
        args.only,
        *(['--all-stages'] if args.all_stages else []),
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
            sys.exit(
                f'a process failed with exit code {worker.returncode}: {Path(log.name).read_text("utf-8")[-2000:]}'
            )


def clear(out: Path) -> None:
    """Remove model copies, results and logs of an earlier run from `out`; other files are kept."""
    for name in ('models', 'data', 'runs', 'cache', 'tracebacks'):
        shutil.rmtree(out / name, ignore_errors=True)
    for old in (*out.glob('results-*.jsonl'), *out.glob('shard-*.txt')):
        old.unlink()


def report(out: Path, page: Path | None = None) -> int:
    """Write the page from the results in `out` and its unchanged rows; return the exit code."""
    from preset_checks.page import current_rows, write
    from preset_checks.preset import Preset
    from preset_checks.results import read

    not_run = [Preset(name).result() for name in presets()]
    # A row of the page is valid only if the preset still has the same parts.
    rows = current_rows()
    unchanged = {r.name: rows[r.name] for r in not_run if r.name in rows and rows[r.name].parts == r.parts}
    known = {**unchanged, **read(out)}
    results = [known.get(result.name, result) for result in not_run]
    models_without_preset = [part for part in part_files('models') if part not in {r.model for r in results}]
    write(results, models_without_preset, **({'path': page} if page else {}))
    failed = [result for result in results if not result.passed]
    for result in failed:
        print(f'{result.name}: {result.reason}')
    print(f'{len(results) - len(failed)} of {len(results)} presets passed')
    return 1 if failed else 0


def main() -> int:
    """Run presets, or list or merge them; return the exit code."""
    args = arguments()
    args.out = args.out.resolve()
    os.environ |= dict(HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false', XTUNE_CACHE=str(args.out / 'cache'))
    names = matching_presets(args.only)
    if args.merge:
        return report(args.out)
    if not names:
        sys.exit(f'no preset matches `{args.only}`; --list prints all')
    if args.list:
        print('\n'.join(names))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    if args.shard:
        number, count = map(int, args.shard.split('/'))
        run_in_process(split(names, count)[number - 1], args.out, args.shard, args.all_stages)
        return 0
    clear(args.out)
    if args.jobs > 1:
        run_jobs(args, names)
    else:
        run_in_process(names, args.out, '1/1', args.all_stages)
    return report(args.out)


if __name__ == '__main__':
    sys.exit(main())
