"""Save and reload the adapter before the first step, so that an export error does not appear only after hours."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ..errors import ModelError
from ..inference.adapter import attach_adapter
from ..parallel.collectives import raise_on_all_ranks, rank
from ..utils.quiet import quiet
from .checkpoint_writer import write_error
from .trained_state import TrainedState

# Raised by peft while it gathers, writes or loads an unsupported adapter.
_FAILURES = (KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError)


def check_adapter(state: TrainedState, write: Callable[[Path, dict[str, torch.Tensor]], None], work_dir: Path) -> None:
    """Save the adapter into a temporary folder, and load it onto a base model without weights.

    All ranks call it, because `state` gathers shards; rank 0 writes.

    Args:
        state: Gathers the adapter tensors.
        write: Writes the gathered tensors into a folder.
        work_dir: The folder of the run.

    Raises:
        ModelError: peft cannot save the adapter, or cannot load the saved one.
        CheckpointError: The folder cannot be written.
    """
    folder = work_dir / '.check_hf.tmp'
    with raise_on_all_ranks():
        try:
            tensors = state.get()
            if rank() == 0:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                write(folder, tensors)
                _reload(state.llm, folder)
        except (OSError, SafetensorError) as error:
            raise write_error(folder, error) from error
        except _FAILURES as error:
            reason = str(error) if isinstance(error, ModelError) else f'{type(error).__name__}: {error}'
            raise ModelError(
                f'the adapter could not be saved and reloaded, so training was not started: {reason}. Change the '
                'section `lora` (modules_to_save, target_modules, trainable_token_indices)'
            ) from error
        finally:
            if rank() == 0:
                shutil.rmtree(folder, ignore_errors=True)


def _reload(llm: PeftModel, folder: Path) -> None:
    """Load the adapter in `folder` onto a copy of the base of `llm` on the meta device."""
    base = llm.get_base_model()
    if not isinstance(base, PreTrainedModel):
        return  # a custom class that only its loader can build
    try:
        with quiet(), torch.device('meta'):
            meta_model = type(base)(copy.deepcopy(base.config))
    except _FAILURES:  # the constructor reads weights, or needs more arguments than the config
        return
    with quiet():
        attach_adapter(meta_model, str(folder))
