"""What is done with a preset: the commands that a person would type, run in this process one after the other."""

import io
import json
import math
import re
import shutil
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from xtune.cli import main
from xtune.config.lazy import comparable, to_plain
from xtune.config.load import load
from xtune.config.presets import presets
from xtune.config.sections import Source
from xtune.config.wire import wire
from xtune.engine.files import POINTER
from xtune.engine.files import load as load_checkpoint

from .copies import make_copy
from .results import NOT_RUN, SHORT, Result
from .results import STAGES as NAMES
from .rows import rows_file
from .settings import CHANGED, LONGER

_PART = re.compile(r'_base_\.(models|methods|datasets)\.(\w+)')
_STEPS = 2


class StageFailed(Exception):
    """A command ended with an error, or left behind what it should not."""


# The folder of presets is walked once, not for each of them.
_files = cache(presets)


@dataclass
class Preset:
    """A preset by its name: what it is made of, and its config."""

    name: str
    path: Path = field(init=False)
    parts: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.path = _files()[self.name]
        self.parts = dict(_PART.findall(self.path.read_text(encoding='utf-8')))

    @property
    def family(self) -> str:
        """The folder it lies in."""
        return self.path.parent.name

    @property
    def alias(self) -> str:
        """The preset that this is another name of: without its last word, and equal in every value."""
        known, name = _files(), self.name.removesuffix('_hf')
        same = name != self.name and name in known and _values(known[name]) == _values(self.path)
        return name if same else ''

    def result(self, **found: Any) -> Result:
        """Return a result with what it is made of and what was found out; without that, it was not run."""
        parts = (self.parts[kind] for kind in ('models', 'methods', 'datasets'))
        return Result(self.name, self.family, *parts, load(self.path).template, **(found or dict(reason=NOT_RUN)))

    def options(self, folder: Path) -> dict[str, object]:
        """Return the changes that let it train on a copy of its model and on local rows below `folder`."""
        cfg = load(self.path)
        job = wire(cfg, self.name)
        options = {'base_model': str(make_copy(self.parts['models'], job.values.base_model, folder / 'models'))}
        many = isinstance(cfg.train_dataset, (list, tuple))
        for number, source in enumerate(job.train_sources):
            name = map_fn_name(source)
            if source.path != 'self_cognition':
                key = f'train_dataset.{number}.path' if many else 'train_dataset.path'
                options[key] = str(rows_file(folder / 'data', name, source.path))
            options |= CHANGED if name not in LONGER else {**CHANGED, 'max_length': LONGER[name]}
        return options


def _values(path: Path) -> Any:
    return comparable(to_plain(load(path)))


def map_fn_name(source: Source) -> str:
    """Return the registered name of a source's map function."""
    name = getattr(source.map_fn, '__name__', source.map_fn)
    return name.removesuffix('_map_fn')


@cache
def leading() -> frozenset[str]:
    """Return the names that run all stages: the first preset of each model and method."""
    first: dict[tuple[str, str], str] = {}
    for name in _files():
        parts = Preset(name).parts
        first.setdefault((parts['models'], parts['methods']), name)
    return frozenset(first.values())


def run(preset: Preset, folder: Path, whole: bool = True) -> Result:
    """Run all stages of a preset, or those up to training, until one fails; what it writes stays only then."""
    if preset.alias:
        return preset.result(alias=preset.alias)
    work = folder / 'runs' / preset.name
    shutil.rmtree(work, ignore_errors=True)
    passed, reason = [], ''
    for name in NAMES if whole else SHORT:
        try:
            STAGES[name](preset, work, folder)
        except StageFailed as error:
            reason = f'{name}: {error}'
            break
        except Exception as error:  # a bug is reported like any other failure, and the rest goes on
            reason = f'{name}: {type(error).__name__}: {error}'
            (folder / 'tracebacks').mkdir(exist_ok=True)
            (folder / 'tracebacks' / f'{preset.name}.txt').write_text(traceback.format_exc(), encoding='utf-8')
            break
        passed.append(name)
    if not reason:
        shutil.rmtree(work, ignore_errors=True)
    short = ' '.join(reason.replace(f'{folder}/', '').split())  # no run's folder in the page
    return preset.result(stages=tuple(passed), reason=short)


def command(*arguments: object) -> str:
    """Run an xtune command in this process and return what it printed.

    Raises:
        StageFailed: It ended with an error, which is the message.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        if stopped.code == 130:  # training takes a signal and leaves a checkpoint; the next preset is not to start
            raise KeyboardInterrupt from None
        if stopped.code:
            text = err.getvalue()
            raise StageFailed(text[text.find('error: ') + 7 :] if 'error: ' in text else text) from None
    return out.getvalue()


def _load(preset: Preset, work: Path, folder: Path) -> None:
    wire(load(preset.path, check_types=True), preset.name)


def _train(preset: Preset, work: Path, folder: Path) -> None:
    options = preset.options(folder)
    pairs = [f'{key}={value}' for key, value in options.items()]
    printed = command('train', preset.name, '--work-dir', work, '--cfg-options', *pairs)
    if ('base BitsAndBytes' in printed) != (preset.parts['methods'] in ('qlora', 'int8_lora')):
        raise StageFailed(f'the base is not quantised as {preset.parts["methods"]} says')
    _expect_steps(work, _STEPS)


def _resume(preset: Preset, work: Path, folder: Path) -> None:
    options = preset.options(folder) | {'schedule.max_steps': _STEPS + 1}
    pairs = [f'{key}={value}' for key, value in options.items()]
    command('train', preset.name, '--work-dir', work, '--resume', '--cfg-options', *pairs)
    _expect_steps(work, _STEPS + 1)


def _expect_steps(work: Path, steps: int) -> None:
    """Compare the newest checkpoint and the metrics with the steps done."""
    done = load_checkpoint(_newest(work))['meta']['iter']
    lines = [json.loads(line) for line in (work / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    if done != steps or not losses or not all(map(math.isfinite, losses)):
        raise StageFailed(f'after {steps} steps the checkpoint stands at {done}, the losses are {losses}')


def _newest(work: Path) -> Path:
    return work / (work / POINTER).read_text(encoding='utf-8').strip()


def _convert(preset: Preset, work: Path, folder: Path) -> None:
    command('convert', 'pth_to_hf', work / f'{preset.name}.py', _newest(work), work / 'hf')


def _merge(preset: Preset, work: Path, folder: Path) -> None:
    """Merge an adapter into the copy; what full fine-tuning saved is a whole model."""
    if preset.parts['methods'] == 'full':
        return
    command('convert', 'merge', preset.options(folder)['base_model'], work / 'hf', work / 'merged')


def _chat(preset: Preset, work: Path, folder: Path) -> None:
    model = work / ('hf' if preset.parts['methods'] == 'full' else 'merged')
    command('chat', model, '--prompt', 'Tell me about Shanghai.', '--max-new-tokens', 4)


STAGES: dict[str, Callable[[Preset, Path, Path], None]] = dict(
    load=_load, train=_train, resume=_resume, convert=_convert, merge=_merge, chat=_chat
)
assert tuple(STAGES) == NAMES
