"""After the adapter is attached: refuse entries of sections `lora` and `quantization` that had no effect."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peft import PeftModel

from ..ops.float8_linear import Float8Config
from .lora_names import converted_targets
from .module_names import as_list, matches_suffix, raise_problems, unknown_name


def check_adapted(config: Any, llm: PeftModel) -> None:
    """Refuse entries of the peft config that had no effect on `llm`.

    Args:
        config: The user's peft config, a copy that peft did not change.
        llm: The model with the adapter.

    Raises:
        ModelError: An entry has no effect. The message lists them all.
    """
    adapted = set(getattr(llm.base_model, 'targeted_module_names', ()))
    for name in getattr(llm.base_model, 'targeted_parameter_names', ()):
        adapted |= {name, name.rpartition('.')[0]}
    if adapted:  # other adapter types do not record the names
        names = [name.replace('.base_layer', '') for name, _ in llm.get_base_model().named_modules()]
        converted = converted_targets(config, llm.get_base_model())
        raise_problems(
            [*_pattern_problems(config, adapted, names, converted), *_excluded_targets(config, adapted, converted)]
        )


def check_skipped(quantization: partial | None, model: torch.nn.Module) -> None:
    """Refuse layers to skip in section `quantization` that `model` does not have.

    Raises:
        ModelError: A name matches no layer. The message lists them all.
    """
    section = {} if quantization is None else quantization.keywords
    names = [name for name, _ in model.named_modules() if name]
    problems = []
    for entry in as_list(section.get('llm_int8_skip_modules')):
        if not any(str(entry) in name for name in names):
            problems.append(unknown_name('quantization.llm_int8_skip_modules', entry, names))
    for entry in set(as_list(section.get('skip'))) - set(Float8Config.skip):  # the default is for all models
        if not any(f'.{entry}.' in f'.{name}.' for name in names):
            problems.append(unknown_name('quantization.skip', entry, names))
    raise_problems(problems)


def _pattern_problems(config: Any, adapted: set[str], modules: list[str], converted: set[str]) -> Iterator[str]:
    for field in ('rank_pattern', 'alpha_pattern'):
        for key in getattr(config, field, None) or {}:
            regex = re.compile(rf'(.*\.)?({key})$')
            if key in converted or any(regex.match(name) for name in adapted):
                continue
            if any(regex.match(name) for name in modules):
                yield f'lora.{field} names {key!r}, which gets no adapter: see lora.target_modules'
            else:
                yield unknown_name(f'lora.{field}', key, sorted(adapted))


def _excluded_targets(config: Any, adapted: set[str], converted: set[str]) -> Iterator[str]:
    """Yield targets whose modules are all excluded by other entries of the section."""
    targets = getattr(config, 'target_modules', None)
    for entry in [] if isinstance(targets, str) else as_list(targets):
        if entry not in converted and not any(matches_suffix(name, entry) for name in adapted):
            fields = ('exclude_modules', 'modules_to_save', 'layers_to_transform', 'layers_pattern')
            excluding = [f'lora.{field}' for field in fields if getattr(config, field, None)]
            why = f': {" or ".join(excluding)} excludes it' if excluding else ''
            yield f'lora.target_modules names {entry!r}, which gets no adapter{why}'
