"""Compares the model settings of a checkpoint and a run, and refuses changes that affect the outputs of the model.

The comparison runs before data are prepared, as far as the config determines the settings, and again with the built
model.
"""

from collections.abc import Iterator
from pathlib import Path

from ..config.checkpoint_config import stored_sections
from ..config.specs import ModelSpec
from ..errors import CheckpointError
from . import checkpoint_io
from .base_fingerprint import weight_fingerprint
from .model_settings import SECTIONS, ModelSettings, plain
from .setting_differences import differences


def settings_of_run(model: ModelSpec, text: str) -> ModelSettings:
    """Return the model settings of a run, as far as its config determines them; `text` is its flat config."""
    adapter = None if model.lora is None else plain(model.lora())
    return ModelSettings(model.base_model, adapter, {}, stored_sections(text, SECTIONS), base_fingerprint_of(model))


def base_fingerprint_of(model: ModelSpec) -> str:
    """Return the fingerprint of the base of an adapter; empty if all weights are trained."""
    return '' if model.lora is None else weight_fingerprint(model.base_model, model.load_llm.keywords.get('revision'))


def check_resume(origin: Path, current: ModelSettings) -> None:
    """Refuse to resume from the checkpoint `origin` if its settings differ from those of the run, `current`.

    Raises:
        CheckpointError: They differ; the message lists every setting with both values.
    """
    saved = ModelSettings.of_meta(checkpoint_io.load(origin, verified=True)['meta'])
    refuse_changes(origin, saved, current, compare_modules=False)
    note = moved_note(saved, current)
    if note:
        print(note)


def check_built(origin: Path, meta: dict, names: set[str], run_meta: dict, run_names: set[str]) -> None:
    """Refuse the checkpoint `origin` if its settings differ from those of the built model.

    Args:
        origin: The checkpoint.
        meta: Its `meta`.
        names: Names of its tensors.
        run_meta: The `meta` of the run's own checkpoints.
        run_names: Names of the tensors that the run trains.

    Raises:
        CheckpointError: Adapter, architecture or base differ.
    """
    # Another spelling of the target modules matters only if it selects other modules.
    saved, current = ModelSettings.of_meta(meta), ModelSettings.of_meta(run_meta)
    refuse_changes(origin, saved, current, compare_modules=names != run_names)


def refuse_changes(origin: Path, saved: ModelSettings, current: ModelSettings, compare_modules: bool) -> None:
    """Refuse settings with which the weights of `origin` would have other outputs.

    Raises:
        CheckpointError: There are such settings.
    """
    refuse_other_kind(origin, saved.adapter, current.adapter)
    changes = [*differences(saved, current, compare_modules), *other_base(saved, current)]
    if changes:
        raise CheckpointError(
            f'{origin} does not fit this model. With these changed settings the same weights have other outputs:\n'
            + ''.join(f'  - {line}\n' for line in changes)
            + f'Restore the earlier values (the config of the checkpoint is in {origin.parent}), or start a new run in '
            'another --work-dir.'
        )


def refuse_other_kind(origin: Path, saved: dict | None, current: dict | None) -> None:
    """Refuse an adapter in a run that trains all weights, and vice versa.

    Args:
        origin: A checkpoint or a folder.
        saved: The config of its adapter; None: it contains all weights.
        current: The adapter config of the run; None: it trains all weights.

    Raises:
        CheckpointError: One is an adapter, the other is not.
    """
    if (saved is None) == (current is None):
        return
    kinds = ('all weights of a model', 'an adapter')
    convert = 'convert it to a model (xtune convert pth_to_hf' + (', then merge)' if saved is not None else ')')
    raise CheckpointError(
        f'{origin} does not fit this model: it contains {kinds[saved is not None]}, but this run trains '
        f'{kinds[current is not None]} (section `lora`). Change `lora`, or {convert} and set base_model to the result'
    )


def other_base(saved: ModelSettings, current: ModelSettings) -> Iterator[str]:
    """Yield a line if two bases have different weights; a moved or copied folder is the same base."""
    fingerprints = saved.base_fingerprint, current.base_fingerprint
    if all(fingerprints) and fingerprints[0] != fingerprints[1]:
        names = f'was {saved.base!r}, now {current.base!r}' if saved.base != current.base else f'{current.base!r}'
        yield f'base_model: {names}; its weights differ from those that the adapter was trained on'


def moved_note(saved: ModelSettings, current: ModelSettings) -> str:
    """Return a note about a base with a new name; empty if the name is the same."""
    if saved.base == current.base:
        return ''
    if current.adapter is None:
        comparison = 'the checkpoint replaces all its weights'
    elif saved.base_fingerprint and current.base_fingerprint:
        comparison = 'with the same weights'
    else:
        comparison = 'whose weights cannot be compared with those of the earlier base'
    return f'note: base_model was {saved.base} and is {current.base} now, {comparison}'
