"""Adapters on a model that uses one matrix for its input and output embeddings: what of them can be merged.

Merging adds to the one matrix. It can hold what a LoRA or single trained tokens change in both embeddings alike, not
what they change in one of them. A copy of an embedding that was trained (modules_to_save) becomes a matrix of its own.
"""

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from peft.utils.other import AuxiliaryTrainingWrapper

from ..errors import ModelError

_BOTH = "lora.modules_to_save=['embed_tokens'] with lora.ensure_weight_tying=True"


def unmergeable(llm: PeftModel) -> list[str]:
    """Return the names of embeddings that share a matrix, and that `llm` changes in a way that the other does not."""
    embeddings = _embeddings(llm)
    changed = [name for name, module in embeddings if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))]
    if not _share(embeddings) or not changed:
        return []
    if any(isinstance(module, BaseTunerLayer) for _, module in embeddings):
        return changed
    copied = [isinstance(module, ModulesToSaveWrapper) for _, module in embeddings]
    if any(copied):
        return [] if all(copied) or len(changed) == 1 else changed
    deltas = {
        id(p) for _, module in embeddings for name, p in module.named_parameters() if 'trainable_tokens_delta' in name
    }
    return [] if len(changed) == len(embeddings) and len(deltas) == 1 else changed


def warning(llm: PeftModel) -> str | None:
    """Return what a person should know before an adapter on shared embeddings is trained; None: nothing.

    Raises:
        ModelError: The adapter is to be the same for both, and cannot be.
    """
    changed, config = unmergeable(llm), llm.peft_config['default']
    one = 'the model uses one matrix for input and output embeddings'
    if len(changed) > 1 and getattr(config, 'ensure_weight_tying', False):
        raise ModelError(
            f'{one}, and lora.ensure_weight_tying cannot keep the adapters of {" and ".join(changed)} equal, as they '
            f'are trained apart: take the embeddings out of lora.target_modules and set {_BOTH}, which trains the '
            'matrix itself'
        )
    if changed:
        return (
            f'{one}, and the adapter changes it for {" and ".join(changed)} apart: `xtune convert merge` refuses such '
            f'an adapter, as merging would change both; it works with --adapter only. {_BOTH} trains the matrix itself'
        )
    embeddings = _embeddings(llm)
    copied = [name for name, module in embeddings if isinstance(module, ModulesToSaveWrapper)]
    if copied and _share(embeddings) and not getattr(config, 'ensure_weight_tying', False):
        return (
            f'{one}, and lora.modules_to_save trains {" and ".join(copied)} apart: the merged model will have two '
            'matrices. lora.ensure_weight_tying=True keeps one'
        )
    return None


def separate_config(llm: torch.nn.Module) -> None:
    """Let the config of a merged model say so if its embeddings do not share a matrix any more."""
    head = llm.get_output_embeddings()
    if head is None or head.weight is llm.get_input_embeddings().weight:
        return
    for config in (llm.config, llm.config.get_text_config()):
        if getattr(config, 'tie_word_embeddings', False):
            config.tie_word_embeddings = False


def _embeddings(llm: PeftModel) -> list[tuple[str, torch.nn.Module]]:
    """Return input and output embeddings, as the adapter wraps them, by name; one that a model lacks is left out."""
    base = llm.get_base_model()
    found = [base.get_input_embeddings(), base.get_output_embeddings()]
    names = {id(module): name for name, module in base.named_modules()}
    return [(names.get(id(module), type(module).__name__), module) for module in found if module is not None]


def _share(embeddings: list[tuple[str, torch.nn.Module]]) -> bool:
    weights = [getattr(_original(module), 'weight', None) for _, module in embeddings]
    return len(weights) == 2 and weights[0] is not None and weights[0] is weights[1]


def _original(module: torch.nn.Module) -> torch.nn.Module:
    """Return the layer below all wrappers of peft."""
    while isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
        module = module.base_layer if isinstance(module, BaseTunerLayer) else module.original_module
    return module
