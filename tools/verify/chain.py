"""What is done with a preset: the commands that a person would type, run in this process one after the other."""

import io
import json
import math
import shutil
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from xtune.cli import main
from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine.checkpoint_io import POINTER
from xtune.engine.checkpoint_io import load as load_checkpoint

from .preset import Preset
from .results import GPU_ONLY, LOADED, SHORT, Result
from .results import STAGES as NAMES

_STEPS = 2


class StageFailed(Exception):
    """A command ended with an error, or left behind what it should not."""


def run(preset: Preset, folder: Path, whole: bool = True) -> Result:
    """Run all stages of a preset, or those up to training, until one fails; what it writes stays only then.

    Of a method that needs a GPU only the first is run.
    """
    if preset.alias:
        return preset.result(alias=preset.alias)
    work = folder / 'runs' / preset.name
    shutil.rmtree(work, ignore_errors=True)
    passed, reason = [], ''
    for name in LOADED if preset.parts['methods'] in GPU_ONLY else NAMES if whole else SHORT:
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
        raise StageFailed(f'the base is not quantized as {preset.parts["methods"]} says')
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
