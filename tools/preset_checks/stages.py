"""The stages of a preset: the commands of `xtune` that a user would run, called in this process."""

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
from .results import GPU_ONLY, LOAD_ONLY, LOAD_TRAIN, Result
from .results import STAGES as STAGE_NAMES

_STEPS = 2


class StageFailed(Exception):
    """A command failed, or its output is wrong."""


def run_stages(preset: Preset, folder: Path, all_stages: bool = True) -> Result:
    """Run all stages of a preset, or only loading and training, until one fails.

    If the method needs a GPU, only the first stage runs. The files of a preset are deleted if all its stages pass.
    """
    if preset.alias:
        return preset.result(alias=preset.alias)
    work = folder / 'runs' / preset.name
    shutil.rmtree(work, ignore_errors=True)
    passed, reason = [], ''
    for name in LOAD_ONLY if preset.parts['methods'] in GPU_ONLY else STAGE_NAMES if all_stages else LOAD_TRAIN:
        try:
            STAGES[name](preset, work, folder)
        except StageFailed as error:
            reason = f'{name}: {error}'
            break
        except Exception as error:  # a bug is reported like any failure, and the next preset runs
            reason = f'{name}: {type(error).__name__}: {error}'
            (folder / 'tracebacks').mkdir(exist_ok=True)
            (folder / 'tracebacks' / f'{preset.name}.txt').write_text(traceback.format_exc(), encoding='utf-8')
            break
        passed.append(name)
    if not reason:
        shutil.rmtree(work, ignore_errors=True)
    one_line = ' '.join(reason.replace(f'{folder}/', '').split())  # the page does not show local paths
    return preset.result(stages=tuple(passed), reason=one_line)


def run_command(*arguments: object) -> str:
    """Run an xtune command in this process and return its output.

    Raises:
        StageFailed: The command failed; the message is its error.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        if stopped.code == 130:  # Ctrl-C during training; do not start the next preset
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
    output = run_command('train', preset.name, '--work-dir', work, '--cfg-options', *pairs)
    if ('base BitsAndBytes' in output) != (preset.parts['methods'] in ('qlora', 'int8_lora')):
        raise StageFailed(f'the quantization of the base model does not match the method {preset.parts["methods"]}')
    _expect_steps(work, _STEPS)


def _resume(preset: Preset, work: Path, folder: Path) -> None:
    options = preset.options(folder) | {'schedule.max_steps': _STEPS + 1}
    pairs = [f'{key}={value}' for key, value in options.items()]
    run_command('train', preset.name, '--work-dir', work, '--resume', '--cfg-options', *pairs)
    _expect_steps(work, _STEPS + 1)


def _expect_steps(work: Path, steps: int) -> None:
    """Check that the latest checkpoint is at step `steps`, and that all losses are finite."""
    checkpoint_step = load_checkpoint(_latest_checkpoint(work))['meta']['iter']
    lines = [json.loads(line) for line in (work / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    if checkpoint_step != steps or not losses or not all(map(math.isfinite, losses)):
        raise StageFailed(
            f'after {steps} steps, the checkpoint is at step {checkpoint_step} and the losses are {losses}'
        )


def _latest_checkpoint(work: Path) -> Path:
    return work / (work / POINTER).read_text(encoding='utf-8').strip()


def _convert(preset: Preset, work: Path, folder: Path) -> None:
    run_command('convert', 'pth_to_hf', work / f'{preset.name}.py', _latest_checkpoint(work), work / 'hf')


def _merge(preset: Preset, work: Path, folder: Path) -> None:
    """Merge the adapter into the base model; full fine-tuning has no adapter."""
    if preset.parts['methods'] == 'full':
        return
    run_command('convert', 'merge', preset.options(folder)['base_model'], work / 'hf', work / 'merged')


def _chat(preset: Preset, work: Path, folder: Path) -> None:
    model = work / ('hf' if preset.parts['methods'] == 'full' else 'merged')
    run_command('chat', model, '--prompt', 'Tell me about Shanghai.', '--max-new-tokens', 4)


STAGES: dict[str, Callable[[Preset, Path, Path], None]] = dict(
    load=_load, train=_train, resume=_resume, convert=_convert, merge=_merge, chat=_chat
)
assert tuple(STAGES) == STAGE_NAMES
