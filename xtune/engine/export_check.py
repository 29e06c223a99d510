"""Write and reload the adapter before the first step, so that an export error does not appear after hours."""

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

# What peft raises while it gathers, writes or loads an adapter that it cannot handle.
_FAILURES = (KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError)


def check_adapter(state: TrainedState, write: Callable[[Path, dict[str, torch.Tensor]], None], work_dir: Path) -> None:
    """Write the adapter into a folder that is removed again, and load it onto the base model without weights.

    Every rank calls it, as `state` gathers what is sharded; rank 0 writes.

    Args:
        state: The adapter.
        write: Writes the gathered tensors of the adapter into a folder.
        work_dir: The run's folder.

    Raises:
        ModelError: peft cannot save the adapter, or cannot load what it saved.
        CheckpointError: The folder cannot be written.
    """
    folder = work_dir / '.trial_hf.tmp'
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
            what = str(error) if isinstance(error, ModelError) else f'{type(error).__name__}: {error}'
            raise ModelError(
                f'the adapter cannot be saved and loaded again, so the run does not start: {what}. Change the section '
                '`lora` (modules_to_save, target_modules, trainable_token_indices)'
            ) from error
        finally:
            if rank() == 0:
                shutil.rmtree(folder, ignore_errors=True)


def _reload(llm: PeftModel, folder: Path) -> None:
    """Load the adapter in `folder` onto a copy of the base of `llm` on the meta device."""
    base = llm.get_base_model()
    if not isinstance(base, PreTrainedModel):
        return  # a class of the user's own, which only its loader can build
    try:
        with quiet(), torch.device('meta'):
            copied = type(base)(copy.deepcopy(base.config))
    except _FAILURES:  # a class that computes with its weights, or takes more than a config
        return
    with quiet():
        attach_adapter(copied, str(folder))
