"""Parse the name of a preset into its parts, and say which part is wrong where it has none of that name."""

import re
from collections.abc import Iterator

from ..errors import ConfigError, did_you_mean
from .compose import VARIANTS, Recipe, part_files
from .model_table import models

FORM = '<model>_<method>_<dataset>_e<epochs>, or that with _gpu8 at its end'
_ENDING = re.compile(rf'_e([1-9]\d*)(?:_({"|".join(filter(None, VARIANTS))}))?$')


def parse(name: str) -> Recipe:
    """Return the parts that `name` is made of.

    Raises:
        ConfigError: It does not have the form of a preset's name, a part is unknown, or the parts do not fit.
    """
    known = {'models': models(), 'methods': part_files('methods'), 'datasets': part_files('datasets')}
    ending = _ENDING.search(name)
    body = name[: ending.start()] if ending else name
    splits = list(_splits(body, sorted(known['methods'], key=len, reverse=True)))
    splits = splits or list(_around_a_misspelt_method(body, known['models'], known['datasets']))
    if not splits:
        raise ConfigError(f'its form is not {FORM}')
    model, method, dataset = max(splits, key=lambda s: (s[0] in known['models']) + (s[2] in known['datasets']))
    wrong = [] if ending else ['it does not end in _e<epochs>, such as _e3']
    for label, part, names in zip(
        ('model', 'method', 'data set'), (model, method, dataset), known.values(), strict=True
    ):
        if part not in names:
            close = did_you_mean(part, names) or ('; there are ' + ', '.join(names) if label == 'method' else '')
            wrong.append(f'no {label} is called `{part}`{close}')
    if wrong:
        raise ConfigError('\n'.join(wrong))
    recipe = Recipe(model, method, dataset, int(ending[1]), ending[2] or '')
    _check_fit(recipe)
    return recipe


def _splits(body: str, methods: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (model, method, data set) for each place where a method stands in `body`."""
    for method in methods:
        for match in re.finditer(f'(?=_{re.escape(method)}_)', body):
            yield body[: match.start()], method, body[match.start() + len(method) + 2 :]


def _around_a_misspelt_method(body: str, known_models: dict, datasets: dict) -> Iterator[tuple[str, str, str]]:
    for model in known_models:
        for dataset in datasets:
            middle = len(body) - len(model) - len(dataset) - 2
            if middle > 0 and body.startswith(f'{model}_') and body.endswith(f'_{dataset}'):
                yield model, body[len(model) + 1 :][:middle], dataset


def _check_fit(recipe: Recipe) -> None:
    if models()[recipe.model].is_mixture_of_experts and recipe.method.startswith(('qlora', 'int8_lora')):
        raise ConfigError(
            f'{recipe.method} does not fit {recipe.model}: quantization reaches linear layers only, and the experts, '
            f'nearly all of its weights, are none; take `{recipe.model}_lora_{recipe.dataset}_e{recipe.epochs}`'
        )
