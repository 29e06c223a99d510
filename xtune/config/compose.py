"""Compose a preset from its name: a model, a method, a data set and a number of epochs, in any combination.

    qwen3_8b_qlora_medqa_e2 = models/qwen3_8b + methods/qlora + datasets/medqa + 2 epochs

`_gpu8` after the epochs means eight devices. The data set and the model may set further options: see DATASET_OPTIONS
and configs/model_rules.tsv. A preset is written as one flat file into the cache each time it is asked for, so that an
installed package may be read-only and a changed part takes effect at once.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..utils.atomic import write_text
from ..utils.cache import cache_folder
from .model_table import Rule, models, rules
from .paths import BASE

# Suffix of a name -> the options that it sets.
VARIANTS: dict[str, dict[str, Any]] = {
    '': {},
    'gpu8': {'schedule.batch_size': 8, 'schedule.gradient_accumulation_steps': 1, 'data.num_workers': 2},
}
# Map function of a data set part -> options of other sections that its data need.
DATASET_OPTIONS: dict[str, dict[str, Any]] = {
    'text_map_fn': {'chat_template': 'plain', 'overlong': 'split'},
    'moss_sft_map_fn': {'chat_template': 'moss_sft'},
    'msagent_react_map_fn': {'chat_template': 'default'},
}
# Data set part -> the options that name the assistant, which models.tsv sets for some models.
BOT_NAMES: dict[str, tuple[str, ...]] = {
    'moss_sft_all': ('train_dataset.0.map_args.bot_name', 'train_dataset.1.map_args.bot_name'),
    'moss_sft_plugins': ('train_dataset.map_args.bot_name',),
}
FORM = '<model>_<method>_<dataset>_e<epochs>, or that with _gpu8 at its end'
_ENDING = re.compile(rf'_e([1-9]\d*)(?:_({"|".join(filter(None, VARIANTS))}))?$')


@dataclass(frozen=True)
class Recipe:
    """The parts that the name of a preset names."""

    model: str
    method: str
    dataset: str
    epochs: int
    variant: str = ''

    @property
    def files(self) -> list[Path]:
        """The files of all parts of the preset."""
        named = {'models': self.model, 'methods': self.method, 'datasets': self.dataset}
        named['strategies'] = 'one_device'
        return [*(BASE / kind / f'{name}.py' for kind, name in named.items()), BASE / 'runtime.py']

    @property
    def rules(self) -> list[Rule]:
        """The rules of the model that hold for this method and data set."""
        return [rule for rule in rules() if rule.model == self.model and rule.fits(self.method, self.dataset)]

    def options(self) -> dict[str, Any]:
        """Return the options that the preset sets beside its parts."""
        text = (BASE / 'datasets' / f'{self.dataset}.py').read_text(encoding='utf-8')
        options: dict[str, Any] = {}
        for map_fn, values in DATASET_OPTIONS.items():
            options |= values if map_fn in text else {}
        for rule in self.rules:
            options |= rule.values
        bot_name = models()[self.model].bot_name
        options |= dict.fromkeys(BOT_NAMES.get(self.dataset, ()) if bot_name else (), bot_name)
        return options | VARIANTS[self.variant] | {'schedule.max_epochs': self.epochs}

    def docstring(self) -> str:
        """Return one sentence that names the parts, after their docstrings, and the reasons of the rules."""
        model, method, dataset = (docstring(path).partition(':')[0].strip('.') for path in self.files[:3])
        method = method.lower() if method.split()[0].istitle() else method
        devices = ', 8 devices' if self.variant == 'gpu8' else ''
        title = f'{model}, {method}, {dataset}, {self.epochs} epoch{"s" * (self.epochs > 1)}{devices}.'
        return '\n\n'.join([title, *dict.fromkeys(rule.reason for rule in self.rules if rule.reason)])


def part_files(kind: str) -> dict[str, Path]:
    """Map the name of each part of a kind (models, methods, datasets) to its file."""
    return {path.stem: path for path in sorted((BASE / kind).glob('*.py')) if path.stem != '__init__'}


def docstring(path: Path) -> str:
    """Return the docstring of a config file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or path.stem


def model_part(base_model: str) -> Path | None:
    """Return the file of the model part with that hub name; None: no part has it."""
    names = [model.name for model in models().values() if model.base_model == base_model]
    return BASE / 'models' / f'{names[0]}.py' if names else None


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
            f'{recipe.method} does not fit {recipe.model}: quantisation reaches linear layers only, and the experts, '
            f'nearly all of its weights, are none; take `{recipe.model}_lora_{recipe.dataset}_e{recipe.epochs}`'
        )


def flat_text(recipe: Recipe, note: str = '') -> str:
    """Return one flat config: the text of all parts, and below it the options that the preset sets beside them.

    Args:
        recipe: The parts.
        note: Sentences for the docstring.
    """
    imports: dict[str, None] = {}
    bodies = []
    for path in recipe.files:
        source = path.read_text(encoding='utf-8')
        head = [n for n in ast.parse(source).body if isinstance(n, (ast.Expr, ast.ImportFrom))]
        imports |= dict.fromkeys(ast.unparse(node) for node in head if isinstance(node, ast.ImportFrom))
        bodies.append('\n'.join(source.splitlines()[max(node.end_lineno for node in head) :]).strip())
    options = '\n'.join(f'{_target(option)} = {value!r}' for option, value in recipe.options().items())
    doc = '\n\n'.join(filter(None, [recipe.docstring(), note]))
    doc += '\n' * ('\n' in doc)
    return '\n\n'.join([f'"""{doc}"""\n' + '\n'.join(imports), *bodies, options]) + '\n'


def _target(option: str) -> str:
    """Return a dotted option as an assignment's target: `train_dataset.0.path` -> `train_dataset[0]['path']`."""
    section, *keys = option.split('.')
    return section + ''.join(f'[{key}]' if key.isdecimal() else f'[{key!r}]' for key in keys)


def compose(name: str, recipe: Recipe, note: str = '') -> Path:
    """Write the preset `name` into the cache and return its file, which has that name.

    Raises:
        ConfigError: The cache cannot be written to.
    """
    path = cache_folder('presets') / f'{name}.py'
    write_text(path, flat_text(recipe, note))
    return path
