"""A second stage: a new run that starts from the weights of an earlier one, a checkpoint or an adapter folder."""

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
from .function_settings import Function
from .resume_checks import check_resume, moved_note, other_base, refuse_other_kind
from .setting_differences import adapter_differences, changes_base, model_differences
from .trained_state import TrainedState


@dataclass(frozen=True)
class FirstStage:
    """Weights to begin with.

    Args:
        origin: Where they lie, for messages.
        state: The tensors by name, as `TrainedState.get` returns them.
        function: What they were trained as.
        template: The chat template they were trained with; None: not known.
        label: Which step of which run they are.
    """

    origin: Path
    state: dict[str, torch.Tensor]
    function: Function
    template: str | None
    label: str

    def load_into(self, trained: TrainedState, run_meta: dict[str, Any]) -> str:
        """Replace the trained weights; return a line for the summary. A collective call.

        Raises:
            CheckpointError: They are those of another adapter or another model.
        """
        now = Function.of_meta(run_meta)
        _refuse(self.origin, self.function, now, where=set(self.state) != trained.names())
        trained.set(self.state, self.origin)
        for line in model_differences(self.function, now):
            print(f'warning: {self.origin} was trained with another setting: {line}')
        if self.template is not None and self.template.strip() != run_meta['export']['chat_template'].strip():
            print(f'warning: {self.origin} was trained with another chat template; this run trains with its own')
        return f'loaded from {self.origin}{self.label}; optimizer and schedule start at step 0'


def weights_to_begin_with(
    load_from: str | None, work_dir: Path, now: Function, start: Path | None, verified: bool = False
) -> FirstStage | None:
    """Return what `load_from` names, or None if there is none or the run resumes from the checkpoint `start`.

    Args:
        load_from: The option.
        work_dir: The folder of the run.
        now: What the run trains, as far as its config tells.
        start: The checkpoint to resume from, which is checked here; it holds the weights of the second stage already.
        verified: Another process of this host reads the checksums of a checkpoint.

    Raises:
        CheckpointError: What is to be loaded cannot be read, or was trained as something else.
    """
    if start is not None:
        check_resume(start, now)
        return None
    if load_from is None:
        return None
    origin = Path(load_from).expanduser()
    stage = _adapter_folder(origin) if (origin / 'adapter_config.json').is_file() else _checkpoint(origin, verified)
    if origin.absolute().parent == work_dir.absolute():
        raise CheckpointError(
            f'load_from={origin} lies in the work_dir of this run, which would move it away as a checkpoint of an '
            'earlier run: give this run a folder of its own with --work-dir'
        )
    _refuse(origin, stage.function, now, where=False)
    note = moved_note(stage.function, now)
    if note and stage.function.base:
        print(note)
    return stage


def _refuse(origin: Path, then: Function, now: Function, where: bool) -> None:
    """Refuse weights that were trained as another kind of adapter, or on another base.

    Raises:
        CheckpointError: They were.
    """
    refuse_other_kind(origin, then.adapter, now.adapter)
    if then.adapter is None:
        return
    if changes_base(then.adapter):
        raise CheckpointError(
            f'load_from={origin} began with init_lora_weights={then.adapter["init_lora_weights"]!r}, which takes a '
            'part out of the weights of the base, and a new run would take out another part. Convert and merge it '
            '(xtune convert pth_to_hf, merge), and name the merged folder as base_model'
        )
    found = [*adapter_differences(then.adapter, now.adapter, where), *other_base(then, now)]
    if found:
        raise CheckpointError(
            f'load_from={origin} does not fit this model: with other settings the same weights compute something '
            'else:\n' + ''.join(f'  - {line}\n' for line in found) + 'Set these as they were then.'
        )
    comparable = not then.base or (then.mark and now.mark)
    if not comparable and then.base != now.base and Path(then.base).name != Path(now.base).name:
        raise CheckpointError(
            f'load_from={origin} was trained on {then.base}, which is not on this machine; base_model is {now.base}. '
            'Set base_model to the model it was trained on. If it is the same one, give its folder that name'
        )


def _checkpoint(origin: Path, verified: bool) -> FirstStage:
    if (origin / 'config.json').is_file():
        raise CheckpointError(f'load_from={origin} is a whole model: name it as base_model, and leave load_from away')
    if not origin.exists() and not str(origin).endswith('.pth') and not origin.is_absolute():
        raise CheckpointError(
            f'load_from={origin} does not exist; it takes a .pth or a local folder with an adapter (fetch one from the '
            f'hub with `hf download {origin} --local-dir FOLDER`)'
        )
    content = checkpoint_io.load(origin, verified)
    meta = content['meta']
    label = f' (step {meta["iter"]} of run {origin.absolute().parent.name})'
    return FirstStage(origin, content['state_dict'], Function.of_meta(meta), meta['export']['chat_template'], label)


def _adapter_folder(origin: Path) -> FirstStage:
    try:
        adapter = check_adapter_folder(str(origin))
        with quiet():
            state = load_peft_weights(str(origin), device='cpu')
        for name, tensor in state.items():
            refuse_non_finite(origin, name, tensor)
    except (ModelError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f'load_from={origin} cannot be read: {error}') from error
    base = str(adapter.get('base_model_name_or_path') or '')
    mark = weight_fingerprint(base, adapter.get('revision')) if base else ''
    return FirstStage(origin, state, Function(base, adapter, mark=mark), _template(origin), f' (adapter on {base})')


def _template(folder: Path) -> str | None:
    """Return the chat template of a folder; None: it has none, or several."""
    path = folder / 'chat_template.jinja'
    if path.is_file():
        return path.read_text(encoding='utf-8')
    found = read_json(folder / 'tokenizer_config.json').get('chat_template') if folder.is_dir() else None
    return found if isinstance(found, str) else None
