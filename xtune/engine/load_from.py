"""`load_from`: a new run starts from the trained weights of an earlier run, a checkpoint or an adapter folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils import load_peft_weights

from ..errors import CheckpointError, ModelError
from ..models.loading.folder_checks import check_adapter_folder
from ..models.loading.json_files import read_json
from ..models.loading.verify import refuse_non_finite
from ..utils.quiet import quiet
from . import checkpoint_io
from .base_fingerprint import weight_fingerprint
from .model_settings import ModelSettings
from .resume_checks import check_resume, moved_note, other_base, refuse_other_kind
from .setting_differences import adapter_differences, changes_base, model_differences
from .trained_state import TrainedState


@dataclass(frozen=True)
class InitialWeights:
    """The trained weights that a run starts from.

    Attributes:
        origin: Their file or folder, for messages.
        state: The tensors by name, as `TrainedState.get` returns them.
        settings: The model settings that they were trained with.
        template: The chat template that they were trained with; None: unknown.
        label: The step and run, or the base, for the summary.
    """

    origin: Path
    state: dict[str, torch.Tensor]
    settings: ModelSettings
    template: str | None
    label: str

    def load_into(self, trained: TrainedState, run_meta: dict[str, Any]) -> str:
        """Replace the trained weights; return a line for the summary. A collective call.

        Raises:
            CheckpointError: They belong to another adapter or another model.
        """
        current = ModelSettings.of_meta(run_meta)
        _refuse_mismatch(self.origin, self.settings, current, compare_modules=set(self.state) != trained.names())
        trained.set(self.state, self.origin)
        for line in model_differences(self.settings, current):
            print(f'warning: {self.origin} was trained with another setting: {line}')
        if self.template is not None and self.template.strip() != run_meta['export']['chat_template'].strip():
            print(f'warning: {self.origin} was trained with another chat template; this run uses its own')
        return f'loaded from {self.origin}{self.label}; optimizer and schedule start at step 0'


def read_initial_weights(
    load_from: str | None, work_dir: Path, current: ModelSettings, start: Path | None, verified: bool = False
) -> InitialWeights | None:
    """Return the weights that `load_from` names; None if it is not set or the run is resumed.

    Args:
        load_from: The option of the config.
        work_dir: Folder of the run.
        current: Model settings of the run, as far as its config determines them.
        start: The checkpoint to resume from, which is checked here. It already contains the loaded weights.
        verified: Another rank of this host verifies the checksums of the checkpoint.

    Raises:
        CheckpointError: The weights cannot be read, or their settings do not match the run.
    """
    if start is not None:
        check_resume(start, current)
        return None
    if load_from is None:
        return None
    origin = Path(load_from).expanduser()
    is_adapter_folder = (origin / 'adapter_config.json').is_file()
    weights = _read_adapter_folder(origin) if is_adapter_folder else _read_checkpoint(origin, verified)
    if origin.absolute().parent == work_dir.absolute():
        raise CheckpointError(
            f'load_from={origin} is in the work_dir of this run, and checkpoints of earlier runs there are archived '
            'at the start: choose another folder for this run with --work-dir'
        )
    _refuse_mismatch(origin, weights.settings, current, compare_modules=False)
    note = moved_note(weights.settings, current)
    if note and weights.settings.base:
        print(note)
    return weights


def _refuse_mismatch(origin: Path, saved: ModelSettings, current: ModelSettings, compare_modules: bool) -> None:
    """Refuse weights of another adapter type or another base.

    Raises:
        CheckpointError: The settings do not match.
    """
    refuse_other_kind(origin, saved.adapter, current.adapter)
    if saved.adapter is None:
        return
    if changes_base(saved.adapter):
        raise CheckpointError(
            f'load_from={origin} was initialized with init_lora_weights={saved.adapter["init_lora_weights"]!r}, which '
            'changes the weights of the base; a new run would change them differently. Convert and merge the adapter '
            '(xtune convert pth_to_hf, merge), and set base_model to the merged folder'
        )
    changes = [*adapter_differences(saved.adapter, current.adapter, compare_modules), *other_base(saved, current)]
    if changes:
        raise CheckpointError(
            f'load_from={origin} does not fit this model. With these changed settings the same weights have other '
            'outputs:\n' + ''.join(f'  - {line}\n' for line in changes) + 'Restore the earlier values.'
        )
    is_comparable = not saved.base or (saved.base_fingerprint and current.base_fingerprint)
    if not is_comparable and saved.base != current.base and Path(saved.base).name != Path(current.base).name:
        raise CheckpointError(
            f'load_from={origin} was trained on {saved.base}, which is not on this machine; base_model is '
            f'{current.base}. Set base_model to the model that it was trained on. If they are the same model, rename '
            f'the folder of base_model to {Path(saved.base).name}'
        )


def _read_checkpoint(origin: Path, verified: bool) -> InitialWeights:
    if (origin / 'config.json').is_file():
        raise CheckpointError(f'load_from={origin} is a full model: set base_model to it, and remove load_from')
    if not origin.exists() and not str(origin).endswith('.pth') and not origin.is_absolute():
        raise CheckpointError(
            f'load_from={origin} does not exist; set it to a .pth file or a local adapter folder (download one from '
            f'the hub with `hf download {origin} --local-dir FOLDER`)'
        )
    content = checkpoint_io.load(origin, verified)
    meta = content['meta']
    template = meta['export']['chat_template']
    label = f' (step {meta["iter"]} of run {origin.absolute().parent.name})'
    return InitialWeights(origin, content['state_dict'], ModelSettings.of_meta(meta), template, label)


def _read_adapter_folder(origin: Path) -> InitialWeights:
    try:
        adapter = check_adapter_folder(str(origin))
        with quiet():
            state = load_peft_weights(str(origin), device='cpu')
        for name, tensor in state.items():
            refuse_non_finite(origin, name, tensor)
    except (ModelError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f'load_from={origin} cannot be read: {error}') from error
    base = str(adapter.get('base_model_name_or_path') or '')
    fingerprint = weight_fingerprint(base, adapter.get('revision')) if base else ''
    settings = ModelSettings(base, adapter, base_fingerprint=fingerprint)
    return InitialWeights(origin, state, settings, _template(origin), f' (adapter on {base})')


def _template(folder: Path) -> str | None:
    """Return the chat template of a folder; None: it has none, or several."""
    path = folder / 'chat_template.jinja'
    if path.is_file():
        return path.read_text(encoding='utf-8')
    template = read_json(folder / 'tokenizer_config.json').get('chat_template') if folder.is_dir() else None
    return template if isinstance(template, str) else None
