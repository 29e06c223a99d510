"""What a checkpoint was trained as and what a run trains: refused where the same weights would compute something else.

Checked before data are prepared, as far as the config tells, and again with the model that was built.
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
    """Return the function settings of a run, as far as its config determines them; `text` is its flat config."""
    adapter = None if model.lora is None else plain(model.lora())
    return ModelSettings(model.base_model, adapter, {}, stored_sections(text, SECTIONS), base_fingerprint_of(model))


def base_fingerprint_of(model: ModelSpec) -> str:
    """Return the fingerprint of the base of an adapter; empty if all weights are trained."""
    return '' if model.lora is None else weight_fingerprint(model.base_model, model.load_llm.keywords.get('revision'))


def check_resume(origin: Path, now: ModelSettings) -> None:
    """Refuse to resume from the checkpoint `origin` in a run whose config says that it computes `now`.

    Raises:
        CheckpointError: It was trained as something else; every setting is listed with both values.
    """
    then = ModelSettings.of_meta(checkpoint_io.load(origin, verified=True)['meta'])
    refuse_changes(origin, then, now, where=False)
    note = moved_note(then, now)
    if note:
        print(note)


def check_built(origin: Path, meta: dict, names: set[str], run_meta: dict, own_names: set[str]) -> None:
    """Refuse the checkpoint `origin` for a model that is built.

    Args:
        origin: The checkpoint.
        meta: Its `meta`.
        names: Of its tensors.
        run_meta: What the run's own checkpoints hold as `meta`.
        own_names: Of the tensors that the run trains.

    Raises:
        CheckpointError: Adapter, architecture or base are others.
    """
    # Settings that name modules in another way matter only if they reach others.
    refuse_changes(origin, ModelSettings.of_meta(meta), ModelSettings.of_meta(run_meta), where=names != own_names)


def refuse_changes(origin: Path, then: ModelSettings, now: ModelSettings, where: bool) -> None:
    """Refuse what computes something else.

    Raises:
        CheckpointError: It does.
    """
    refuse_other_kind(origin, then.adapter, now.adapter)
    found = [*differences(then, now, where), *other_base(then, now)]
    if found:
        raise CheckpointError(
            f'{origin} does not fit this model: with other settings the same weights compute something else:\n'
            + ''.join(f'  - {line}\n' for line in found)
            + f'Set what it was trained with (the config that wrote it is in {origin.parent}), or start anew in '
            'another --work-dir.'
        )


def refuse_other_kind(origin: Path, then: dict | None, now: dict | None) -> None:
    """Refuse an adapter where all weights are trained, and the other way round.

    Args:
        origin: A checkpoint or a folder.
        then: The config of its adapter; None: it holds all weights.
        now: That of the run.

    Raises:
        CheckpointError: They are of two kinds.
    """
    if (then is None) == (now is None):
        return
    kinds = ('all weights of a model', 'an adapter')
    how = 'make a model of it (xtune convert pth_to_hf' + (', then merge)' if then is not None else ')')
    raise CheckpointError(
        f'{origin} does not fit this model: it holds {kinds[then is not None]}, this run trains '
        f'{kinds[now is not None]} (section `lora`). Change `lora`, or {how} and name that as base_model'
    )


def other_base(then: ModelSettings, now: ModelSettings) -> Iterator[str]:
    """Yield what shows that two bases have other weights; a folder that was moved or copied is the same."""
    if then.base_fingerprint and now.base_fingerprint and then.base_fingerprint != now.base_fingerprint:
        names = f'{then.base!r} then, {now.base!r} now' if then.base != now.base else f'{now.base!r}'
        yield f'base_model: {names}, and its weights are not those that the adapter was trained on'


def moved_note(then: ModelSettings, now: ModelSettings) -> str:
    """Return a note about a base that has another name now; empty if it has not."""
    if then.base == now.base:
        return ''
    if now.adapter is None:
        same = 'of which the checkpoint replaces all weights'
    else:
        same = (
            'with the same weights'
            if then.base_fingerprint and now.base_fingerprint
            else 'whose weights cannot be compared with those it had'
        )
    return f'note: base_model was {then.base} and is {now.base} now, {same}'
