"""Entries of section `lora` that had no effect, seen once the adapter is on; names that quantisation leaves out."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peft import PeftModel

from ..ops.float8_linear import Float8Config
from .lora_names import moved_targets
from .module_names import ends_with, listed, refuse, unknown


def check_adapted(given: Any, llm: PeftModel) -> None:
    """Refuse entries of the peft config `given` that had no effect on `llm`, which has that adapter.

    Args:
        given: The config as the user wrote it; peft changes its own.
        llm: The model with the adapter.

    Raises:
        ModelError: An entry has no effect. The message lists them all.
    """
    adapted = set(getattr(llm.base_model, 'targeted_module_names', ()))
    for name in getattr(llm.base_model, 'targeted_parameter_names', ()):
        adapted |= {name, name.rpartition('.')[0]}
    if adapted:  # other kinds of adapters do not tell
        names = [name.replace('.base_layer', '') for name, _ in llm.get_base_model().named_modules()]
        moved = moved_targets(given, llm.get_base_model())
        refuse([*_pattern_problems(given, adapted, names, moved), *_left_out(given, adapted, moved)])


def check_skipped(quantization: partial | None, model: torch.nn.Module) -> None:
    """Refuse names of layers that section `quantization` leaves out and that `model` does not have.

    Raises:
        ModelError: There are some. The message lists them all.
    """
    given = {} if quantization is None else quantization.keywords
    names = [name for name, _ in model.named_modules() if name]
    problems = []
    for entry in listed(given.get('llm_int8_skip_modules')):
        if not any(str(entry) in name for name in names):
            problems.append(unknown('quantization.llm_int8_skip_modules', entry, names))
    for entry in set(listed(given.get('skip'))) - set(Float8Config.skip):  # the default is for all models
        if not any(f'.{entry}.' in f'.{name}.' for name in names):
            problems.append(unknown('quantization.skip', entry, names))
    refuse(problems)


def _pattern_problems(config: Any, adapted: set[str], modules: list[str], moved: set[str]) -> Iterator[str]:
    for field in ('rank_pattern', 'alpha_pattern'):
        for key in getattr(config, field, None) or {}:
            form = re.compile(rf'(.*\.)?({key})$')
            if key in moved or any(form.match(name) for name in adapted):
                continue
            if any(form.match(name) for name in modules):
                yield f'lora.{field} names {key!r}, which gets no adapter: see lora.target_modules'
            else:
                yield unknown(f'lora.{field}', key, sorted(adapted))


def _left_out(config: Any, adapted: set[str], moved: set[str]) -> Iterator[str]:
    """Yield targets that are modules of the model, all of which other entries of the section take out again."""
    targets = getattr(config, 'target_modules', None)
    for entry in [] if isinstance(targets, str) else listed(targets):
        if entry not in moved and not any(ends_with(name, entry) for name in adapted):
            fields = ('exclude_modules', 'modules_to_save', 'layers_to_transform', 'layers_pattern')
            given = [f'lora.{field}' for field in fields if getattr(config, field, None)]
            why = f': {" or ".join(given)} leaves it out' if given else ''
            yield f'lora.target_modules names {entry!r}, which gets no adapter{why}'
