"""Adapters on models with tied embeddings: which of them can be merged.

Merging adds to the shared matrix. It can represent a change (LoRA, trainable tokens) that is the same for the input and
the output embedding, but not a change of only one of them. A trained copy of an embedding (modules_to_save) becomes a
separate matrix.
"""

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from peft.utils.other import AuxiliaryTrainingWrapper

from ..errors import ModelError

_BOTH = "lora.modules_to_save=['embed_tokens'] with lora.ensure_weight_tying=True"


def unmergeable(llm: PeftModel) -> list[str]:
    """Return the names of tied embeddings that the adapter of `llm` changes in different ways."""
    embeddings = _embeddings(llm)
    changed = [name for name, module in embeddings if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))]
    if not _are_tied(embeddings) or not changed:
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


def tied_embeddings_warning(llm: PeftModel) -> str | None:
    """Return a warning about an adapter on tied embeddings, before it is trained; None if there is nothing to warn of.

    Raises:
        ModelError: `ensure_weight_tying` is set, and the adapters of the two embeddings are trained separately.
    """
    changed, config = unmergeable(llm), llm.peft_config['default']
    tied = 'the model ties its input and output embeddings'
    if len(changed) > 1 and getattr(config, 'ensure_weight_tying', False):
        raise ModelError(
            f'{tied}, and lora.ensure_weight_tying cannot keep the adapters of {" and ".join(changed)} equal, because '
            f'they are trained separately: remove the embeddings from lora.target_modules and set {_BOTH}, which '
            'trains the shared matrix'
        )
    if changed:
        return (
            f'{tied}, and the adapter changes {" and ".join(changed)} separately: `xtune convert merge` refuses such '
            f'an adapter, because merging would change both; it works with --adapter only. {_BOTH} trains the shared '
            'matrix'
        )
    embeddings = _embeddings(llm)
    copied = [name for name, module in embeddings if isinstance(module, ModulesToSaveWrapper)]
    if copied and _are_tied(embeddings) and not getattr(config, 'ensure_weight_tying', False):
        return (
            f'{tied}, and lora.modules_to_save trains {" and ".join(copied)} separately: the merged model will have '
            'two matrices. lora.ensure_weight_tying=True keeps one'
        )
    return None


def untie_config(llm: torch.nn.Module) -> None:
    """Set `tie_word_embeddings=False` in the config of a merged model whose embeddings are no longer tied."""
    head = llm.get_output_embeddings()
    if head is None or head.weight is llm.get_input_embeddings().weight:
        return
    for config in (llm.config, llm.config.get_text_config()):
        if getattr(config, 'tie_word_embeddings', False):
            config.tie_word_embeddings = False


def _embeddings(llm: PeftModel) -> list[tuple[str, torch.nn.Module]]:
    """Return name and module of the input and output embeddings, with the adapter's wrappers; skip a missing one."""
    base = llm.get_base_model()
    embeddings = [base.get_input_embeddings(), base.get_output_embeddings()]
    names = {id(module): name for name, module in base.named_modules()}
    return [(names.get(id(module), type(module).__name__), module) for module in embeddings if module is not None]


def _are_tied(embeddings: list[tuple[str, torch.nn.Module]]) -> bool:
    weights = [getattr(_unwrapped(module), 'weight', None) for _, module in embeddings]
    return len(weights) == 2 and weights[0] is not None and weights[0] is weights[1]


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the layer inside all wrappers of peft."""
    while isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
        module = module.base_layer if isinstance(module, BaseTunerLayer) else module.original_module
    return module
