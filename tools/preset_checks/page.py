"""docs/en/presets.md: the stages, the overrides, and a table of results per family."""

from itertools import groupby
from pathlib import Path

from xtune.config.presets import ROOT

from .overrides import LONG_SAMPLES, OVERRIDES
from .results import GPU_ONLY, LOAD_TRAIN, STAGES, Result, rows_of, versions

PAGE = ROOT.parent / 'docs' / 'en' / 'presets.md'
_HEAD = """# Presets and their test results

Written by `python tools/verify_presets.py`; do not edit. Run with {versions}.

{passed} of {count} presets passed: {all_stages} ran all stages, {load_train} loading and training. {aliases} are
aliases of other presets. {load_only} only loaded, because their method ({gpu_only}) needs a GPU.

## Stages

Each preset ran on a CPU with the commands of `xtune`, on a small random copy of its model:

| stage | what passed |
|---|---|
| load | the preset without changes: read, all options and types checked, wired |
| train | `xtune train`: data preparation, quantization of the base model by the method, 2 optimizer steps, checkpoint |
| resume | `xtune train --resume`: one more step; the checkpoint is at step 3 |
| convert | `xtune convert pth_to_hf` |
| merge | `xtune convert merge`, which compares the logits before and after; skipped for `full` |
| chat | `xtune chat` with the merged model (`full`: with the converted model): one prompt, 4 tokens, greedy |

`all` means all six stages. They run for the first preset of each combination of model and method. The other presets use
other data and stop after `train`. Presets whose method needs a GPU stop after `load`. A failed stage and its error are
in bold.

A copy has the transformers class of the real model and the flags of its published config.json: tied embeddings, norms,
biases, heads per key-value head, rotary parameters, logit caps, LoRA ranks of latent attention, number of experts and
of active experts. It has two to four layers, a hidden size of 64 to 128, and sliding windows of 32 tokens. Copies of
2023 remote-code checkpoints have their original format. Tokenizers are small, with the special tokens of the model
family. Data are the example rows of the map functions, in local files of the same type.

Not covered: the published weights, tokenizers and data sets, memory, speed, GPU kernels, distributed runs, and the
quality of the trained models. The values of config.json were copied by hand from the published files and were not
compared with a download. Copies of `gpt_oss` are not in MXFP4, unlike the published weights.

## Overrides

`base_model` and the paths of `train_dataset` point to the copies and the local files. These options are changed:

| option | value |
|---|---|
{overrides}

## Results
"""
_COLUMNS = '| preset | model | method | data | template | passed |\n|---|---|---|---|---|---|\n'
_LAST = """
## Models without a preset

The tests build a copy of each of these models and compute a loss and gradients: {parts}.
"""


def render(results: list[Result], models_without_preset: list[str]) -> str:
    """Return the text of the page; `results` are ordered by family."""
    overrides = [f'| `{key}` | `{value}` |' for key, value in OVERRIDES.items()]
    overrides += [f'| `max_length` of `{name}` | `{value}` |' for name, value in LONG_SAMPLES.items()]
    passed = [result for result in results if result.passed]
    text = _HEAD.format(
        versions=versions(),
        passed=len(passed),
        count=len(results),
        all_stages=sum(result.stages == STAGES for result in passed),
        load_train=sum(result.stages == LOAD_TRAIN for result in passed),
        aliases=sum(bool(result.alias) for result in results),
        load_only=sum(result.method in GPU_ONLY for result in passed if not result.alias),
        gpu_only=', '.join(f'`{method}`' for method in GPU_ONLY),
        overrides='\n'.join(overrides),
    )
    for family, group in groupby(results, key=lambda result: result.family):
        text += f'\n### {family}\n\n{_COLUMNS}' + ''.join(f'{result.row()}\n' for result in group)
    if not models_without_preset:
        return text
    return text + _LAST.format(parts=', '.join(f'`{part}`' for part in models_without_preset))


def current_rows() -> dict[str, Result]:
    """Return the results on the current page, by the name of the preset."""
    return rows_of(PAGE.read_text(encoding='utf-8')) if PAGE.is_file() else {}


def write(results: list[Result], models_without_preset: list[str], path: Path = PAGE) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(results, models_without_preset), encoding='utf-8')
