"""docs/en/presets.md: what was run, what was changed for it, and a table for each family."""

from itertools import groupby
from pathlib import Path

from xtune.config.presets import ROOT

from .results import GPU_ONLY, SHORT, STAGES, Result, rows_of, versions
from .settings import CHANGED, LONGER

PAGE = ROOT.parent / 'docs' / 'en' / 'presets.md'
_HEAD = """# Presets, and what was run of each

Written by `python tools/verify_presets.py`; do not edit. Run with {versions}.

{passed} of {count} presets passed: {whole} all stages, {short} loading and training, {aliases} as another
name of one of these, and {loaded} loading only, as their method ({gpu_only}) needs a GPU.

## What was run

Each preset was run on a CPU through the commands of `xtune`, on a small random copy of its model:

| stage | what passed |
|---|---|
| load | the preset as it is: read, checked against every option and type, wired |
| train | `xtune train`: data prepared, base quantized as the method says, 2 optimizer steps, checkpoint |
| resume | `xtune train --resume`: one more step; the checkpoint stands at step 3 |
| convert | `xtune convert pth_to_hf` |
| merge | `xtune convert merge`, which compares the answers before and after; nothing to merge after `full` |
| chat | `xtune chat` with the merged (`full`: saved) model: one prompt, 4 tokens, greedy |

`all` means these six, which the first preset of each model and method runs. The others train on other data and stop
after `train`, those whose method needs a GPU after `load`. In bold stands the stage that failed, and what it said.

The copy has the class that the real model has in transformers and the flags of its published config.json (tied
embeddings, norms, biases, heads per key-value head, rotary parameters, caps, ranks, experts and how many are used), two
to four layers, a width of 64 to 128, and sliding windows of 32 tokens. Models of 2023 are copied in their original
layout. Tokenizers are small ones with the special tokens of the family. Rows are those that the map functions show, in
files of local type.

What this does not show: the published weights, tokenizers and data sets themselves, memory, speed, GPU kernels,
several devices, or what a model learns. The values of config.json were written down from the published ones; nothing
was fetched to compare. `gpt_oss` copies are not in MXFP4, as the published weights are.

## What was changed

`base_model` and the paths of `train_dataset` point to the copies, and:

| key | value |
|---|---|
{changed}

## Results
"""
_COLUMNS = '| preset | model | method | data | template | passed |\n|---|---|---|---|---|---|\n'
_LAST = """
## Models without a preset

Parts that no preset takes; the tests build a copy of each and compute a loss and gradients: {parts}.
"""


def render(results: list[Result], parts_without: list[str]) -> str:
    """Return the page; `results` are ordered by family."""
    changed = [f'| `{key}` | `{value}` |' for key, value in CHANGED.items()]
    changed += [f'| `max_length` of `{name}` | `{value}` |' for name, value in LONGER.items()]
    text = _HEAD.format(
        versions=versions(),
        passed=sum(one.passed for one in results),
        count=len(results),
        whole=sum(one.stages == STAGES for one in results if one.passed),
        short=sum(one.stages == SHORT for one in results if one.passed),
        aliases=sum(bool(one.alias) for one in results),
        loaded=sum(one.method in GPU_ONLY for one in results if one.passed and not one.alias),
        gpu_only=', '.join(f'`{method}`' for method in GPU_ONLY),
        changed='\n'.join(changed),
    )
    for family, group in groupby(results, key=lambda one: one.family):
        text += f'\n### {family}\n\n{_COLUMNS}' + ''.join(f'{one.row()}\n' for one in group)
    return text + _LAST.format(parts=', '.join(f'`{part}`' for part in parts_without)) if parts_without else text


def earlier() -> dict[str, Result]:
    """Return what the page shows now."""
    return rows_of(PAGE.read_text(encoding='utf-8')) if PAGE.is_file() else {}


def write(results: list[Result], parts_without: list[str], path: Path = PAGE) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(results, parts_without), encoding='utf-8')
