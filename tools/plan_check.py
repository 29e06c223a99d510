#!/usr/bin/env python
"""Compare what `xtune plan` predicts with what `xtune train` then takes: memory and speed of random models on one GPU.

    python tools/plan_check.py FOLDER            eight runs of models of about 1 B parameters
    python tools/plan_check.py FOLDER --cases 0 4    two of them
    python tools/plan_check.py FOLDER --tiny     the same on tiny models, which needs no GPU and compares no memory

`planned` is the peak in GiB measured on slices on this GPU, `counted` that from tensors without values, as other cards
get it; their ratios to the measured one follow. The exit code is 1 if a planned peak is more than 5 % off, a counted
one more than 10 %, or a speed more than 15 %.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))

from devices.material import make_model, make_rows  # noqa: E402

STEPS, WARM_UP = 6, 3
PLANNED, COUNTED, SPEED = 0.05, 0.1, 0.15
WIDE = dict(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
)
TINY = WIDE | dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2)
TINY |= dict(num_hidden_layers=3)


@dataclass(frozen=True)
class Case:
    """A run: its method, vocabulary in thousands, micro-batch, length, what is recomputed."""

    method: str
    vocabulary: int
    batch: int
    length: int
    recomputed: str | int
    accumulate: int = 2
    pack: bool = False
    compile: bool = True

    @property
    def name(self) -> str:
        """What the table calls it."""
        more = (
            ' packed' * self.pack + ' not compiled' * (not self.compile) + ' no accumulation' * (self.accumulate == 1)
        )
        shape = f'{self.vocabulary}k {self.batch} x {self.length}'
        return f'{self.method} {shape} {self.recomputed}{more}'


CASES = [
    Case('lora', 32, 4, 2048, 'all'),
    Case('lora', 32, 4, 2048, 'none'),
    Case('lora', 32, 4, 2048, 8),
    Case('lora', 32, 8, 2048, 'offload'),
    Case('qlora', 128, 4, 2048, 'none'),
    Case('fp8_lora', 128, 4, 2048, 'all'),
    Case('lora', 128, 2, 2048, 'auto', pack=True),
    Case('full', 32, 2, 1024, 'none', accumulate=1, compile=False),
]


def config(case: Case, folder: Path) -> str:
    """Return the config of a run, in which every row is full and nothing is saved."""
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    options = {
        'base_model': str(folder / f'model_{case.vocabulary}'),
        'train_dataset': dict(path=str(rows_of(case, folder)), map_fn='tokenized'),
        'max_length': case.length,
        'pack': case.pack,
        'checkpointing': case.recomputed,
        'schedule.batch_size': case.batch,
        'schedule.accumulate': case.accumulate,
        'schedule.max_steps': STEPS,
        'speed.compile': case.compile,
        'log': dict(every_steps=1, tensorboard=False, plot=False),
        'checkpoint': dict(every_steps=None, every_epochs=None),
        'chat_samples': None,
        'precision': 'bf16',
        'custom_imports': ['devices.stop'],
        'runner': dict(custom_hooks=[dict(type='xtune.StopUnsaved', steps=STEPS)]),
    }
    return flatten(find(f'smollm2_135m_{case.method}_selfcog_e2'), options)


def rows_of(case: Case, folder: Path) -> Path:
    """Return the rows of a run; packed ones are half as long, so that two fill a sequence."""
    length = case.length // 2 if case.pack else case.length
    path = folder / f'rows_{case.vocabulary}_{length}.jsonl'
    count = (STEPS + 1) * case.batch * case.accumulate * (2 if case.pack else 1)
    if not path.is_file() or sum(1 for _ in path.open(encoding='utf-8')) < count:
        make_rows(path, count, length, case.vocabulary * 1000)
    return path


def call(place: Path, *arguments: str) -> str:
    """Run an xtune command; return what it prints. A failure ends this program."""
    paths = [str(TOOLS), str(TOOLS.parent), os.environ.get('PYTHONPATH', '')]
    environment = os.environ | dict(PYTHONPATH=os.pathsep.join(filter(None, paths)), XTUNE_CACHE=str(place / 'cache'))
    done = subprocess.run(
        [sys.executable, '-m', 'xtune', *arguments], env=environment, capture_output=True, text=True, encoding='utf-8'
    )
    if done.returncode not in ((0, 2) if arguments[0] == 'plan' else (0, 130)) or not done.stdout:
        sys.exit(f'xtune {" ".join(arguments)} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}')
    return done.stdout


def compare(case: Case, folder: Path) -> dict:
    """Plan a run, do it, and return the figures of both: GiB and tokens/s."""
    place = folder / case.name.replace(' ', '_')
    place.mkdir(parents=True, exist_ok=True)
    path = place / 'run.py'
    path.write_text(config(case, folder), encoding='utf-8')
    plan = json.loads(call(folder, 'plan', str(path), '--json', '--memory', '80'))
    metrics = place / 'run' / 'metrics.jsonl'
    metrics.unlink(missing_ok=True)
    call(folder, 'train', str(path), '--work-dir', str(place / 'run'))
    rows = [row for row in map(json.loads, metrics.read_text(encoding='utf-8').splitlines()) if 'loss' in row]
    memory, measured = plan['memory'], plan['measured']
    return dict(
        name=case.name,
        planned=memory['peak'] / 2**30 if measured else None,
        counted=memory['counted_peak'] / 2**30,
        peak=max(row['memory_gib'] for row in rows) if measured else None,
        planned_speed=plan['tokens_per_second'],
        speed=statistics.median(row['tokens_per_second'] for row in rows[WARM_UP:]),
    )


def line(found: dict) -> str:
    """Return a row of the table."""

    def number(value: float | None, form: str) -> str:
        return '' if value is None else format(value, form)

    def ratio(name: str, true: str) -> str:
        return f'{found[name] / found[true]:.3f}' if found[name] and found[true] else ''

    cells = [
        found['name'],
        number(found['planned'], '.2f'),
        number(found['counted'], '.2f'),
        number(found['peak'], '.2f'),
        f'{ratio("planned", "peak")} {ratio("counted", "peak")}',
        number(found['planned_speed'], ',.0f'),
        number(found['speed'], ',.0f'),
        ratio('planned_speed', 'speed'),
    ]
    return f'| {" | ".join(cells)} |'


def misses(found: dict) -> bool:
    """Tell whether a prediction is further off than it may be."""
    pairs = [('planned', 'peak', PLANNED), ('counted', 'peak', COUNTED), ('planned_speed', 'speed', SPEED)]
    return any(found[a] and found[b] and abs(found[a] / found[b] - 1) > most for a, b, most in pairs)


def main() -> None:
    """Make the models, then plan and run each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='where models, rows and results are written')
    parser.add_argument('--tiny', action='store_true', help='tiny models, for machines without a GPU')
    parser.add_argument('--cases', type=int, nargs='+', help='numbers of the runs, from 0 (default: all)')
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    cases = [CASES[number] for number in args.cases] if args.cases else CASES
    if args.tiny:  # a base in float8 needs a GPU
        short = [replace(case, batch=2, length=128) for case in cases if case.method != 'fp8_lora']
        cases = [replace(case, recomputed=2) if case.recomputed == 8 else case for case in short]
    for vocabulary in sorted({case.vocabulary for case in cases}):
        shape = (TINY if args.tiny else WIDE) | dict(vocab_size=vocabulary * 1000)
        # A process of its own, so that the GPU's memory is free again.
        maker = multiprocessing.get_context('spawn').Process(
            target=make_model, args=(args.folder / f'model_{vocabulary}', shape)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit('a model could not be made')
    print(
        '| case | planned | counted | measured | ratios | tokens/s planned | measured | ratio |',
        '|---' * 8 + '|',
        sep='\n',
    )
    results = []
    for case in cases:
        results.append(compare(case, args.folder))
        print(line(results[-1]), flush=True)
        (args.folder / 'results.json').write_text(json.dumps(results, indent=1), encoding='utf-8')
    sys.exit(any(map(misses, results)))


if __name__ == '__main__':
    main()
