"""Presets by name: any model x method x data set, whether or not a file of that name exists.

    qwen3_8b_qlora_medqa_e2 = models/qwen3_8b + methods/qlora + datasets/medqa + 2 epochs

`_gpu8` after the epochs means eight devices. A composed preset is one flat file in the cache, written anew each time it
is asked for, so an installed package may be read-only and a changed part counts at once.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, did_you_mean
from ..utils.atomic import write_text
from ..utils.cache import cache_folder

# Suffix of a name -> what it changes in `schedule` and the lines it adds.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    '': ('', ()),
    'gpu8': (', batch_size=8, accumulate=1', ('data.num_workers = 2',)),
}
# What a data set demands of other sections, by the map function of its part.
DEMANDS: dict[str, tuple[str, ...]] = {
    'text_map_fn': ("template = 'plain'", "overlong = 'split'"),
    'moss_sft_map_fn': ("template = 'moss_sft'",),
    'msagent_react_map_fn': ("template = 'default'",),
}
# What a model demands, by the beginning of its name: transformers lets packed samples of gpt-oss attend to each other.
MODEL_DEMANDS: dict[str, tuple[str, ...]] = {'gpt_oss': ('pack = False',)}
FORM = '<model>_<method>_<dataset>_e<epochs>, or that with _gpu8 at its end'
_ENDING = re.compile(rf'_e([1-9]\d*)(?:_({"|".join(filter(None, VARIANTS))}))?$')


@dataclass(frozen=True)
class Recipe:
    """The pieces of a preset's name."""

    model: str
    method: str
    dataset: str
    epochs: int
    variant: str = ''

    @property
    def name(self) -> str:
        """The preset's name."""
        ending = f'_{self.variant}' if self.variant else ''
        return f'{self.model}_{self.method}_{self.dataset}_e{self.epochs}{ending}'

    def changes(self, base: Path) -> list[str]:
        """Return the lines that a preset of these pieces has beside its parts."""
        schedule, lines = VARIANTS[self.variant]
        first = f'schedule.update(max_epochs={self.epochs}{schedule})' if schedule else ''
        text = (base / 'datasets' / f'{self.dataset}.py').read_text(encoding='utf-8')
        demands = [line for map_fn, wanted in DEMANDS.items() if map_fn in text for line in wanted]
        demands += [line for start, wanted in MODEL_DEMANDS.items() if self.model.startswith(start) for line in wanted]
        return [first or f'schedule.max_epochs = {self.epochs}', *lines, *demands]

    def title(self, base: Path) -> str:
        """Return one sentence that names the pieces, from the docstrings of their parts."""
        kinds = dict(models=self.model, methods=self.method, datasets=self.dataset)
        names = (docstring(base / kind / f'{name}.py') for kind, name in kinds.items())
        model, method, dataset = (name.partition(':')[0].strip('.') for name in names)
        method = method.lower() if method.split()[0].istitle() else method
        devices = ', 8 devices' if self.variant == 'gpu8' else ''
        return f'{model}, {method}, {dataset}, {self.epochs} epoch{"s" * (self.epochs > 1)}{devices}.'


def pieces(base: Path, kind: str) -> dict[str, Path]:
    """Map the name of each part of a kind (models, methods, datasets) below `base` to its file."""
    return {path.stem: path for path in sorted((base / kind).glob('*.py')) if path.stem != '__init__'}


def docstring(path: Path) -> str:
    """Return the docstring of a config file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or path.stem


def model_part(base_model: str, base: Path) -> Path | None:
    """Return the file of the model part with that hub name; None: no part has it."""
    line = f'base_model = {base_model!r}'
    parts = pieces(base, 'models').values()
    return next((path for path in parts if line in path.read_text(encoding='utf-8')), None)


def parse(name: str, base: Path) -> Recipe:
    """Return the pieces that `name` is made of.

    Raises:
        ConfigError: It has not the form of a preset's name, a piece is unknown, or the pieces do not fit each other.
    """
    models, methods, datasets = (pieces(base, kind) for kind in ('models', 'methods', 'datasets'))
    ending = _ENDING.search(name)
    body = name[: ending.start()] if ending else name
    splits = list(_splits(body, sorted(methods, key=len, reverse=True)))
    splits = splits or list(_around_a_misspelt_method(body, models, datasets))
    if not splits:
        raise ConfigError(f'its form is not {FORM}')
    model, method, dataset = max(splits, key=lambda s: (s[0] in models) + (s[2] in datasets))
    wrong = [] if ending else ['it does not end in _e<epochs>, such as _e3']
    for kind, piece, known in (('model', model, models), ('method', method, methods), ('data set', dataset, datasets)):
        if piece not in known:
            close = did_you_mean(piece, known) or ('; there are ' + ', '.join(known) if kind == 'method' else '')
            wrong.append(f'no {kind} is called `{piece}`{close}')
    if wrong:
        raise ConfigError('\n'.join(wrong))
    recipe = Recipe(model, method, dataset, int(ending[1]), ending[2] or '')
    _check_fit(recipe, docstring(models[model]))
    return recipe


def _splits(body: str, methods: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (model, method, data set) for each place where a method stands in `body`."""
    for method in methods:
        for found in re.finditer(f'(?=_{re.escape(method)}_)', body):
            yield body[: found.start()], method, body[found.start() + len(method) + 2 :]


def _around_a_misspelt_method(body: str, models: dict, datasets: dict) -> Iterator[tuple[str, str, str]]:
    for model in models:
        for dataset in datasets:
            middle = len(body) - len(model) - len(dataset) - 2
            if middle > 0 and body.startswith(f'{model}_') and body.endswith(f'_{dataset}'):
                yield model, body[len(model) + 1 :][:middle], dataset


def _check_fit(recipe: Recipe, about_model: str) -> None:
    if 'Mixture of experts' in about_model and recipe.method.startswith(('qlora', 'int8_lora')):
        raise ConfigError(
            f'{recipe.method} does not fit {recipe.model}: quantisation reaches linear layers only, and the experts, '
            f'nearly all of its weights, are none; take `{recipe.model}_lora_{recipe.dataset}_e{recipe.epochs}`'
        )


def flat_text(recipe: Recipe, base: Path) -> str:
    """Return the text of one config with the parts of `recipe`, comments included, and what they need."""
    paths = [base / 'models' / f'{recipe.model}.py', base / 'methods' / f'{recipe.method}.py']
    paths += [base / 'datasets' / f'{recipe.dataset}.py', base / 'strategies' / 'one_device.py', base / 'runtime.py']
    imports: dict[str, None] = {}
    bodies = []
    for path in paths:
        source = path.read_text(encoding='utf-8')
        head = [n for n in ast.parse(source).body if isinstance(n, (ast.Expr, ast.ImportFrom))]
        imports |= dict.fromkeys(ast.unparse(node) for node in head if isinstance(node, ast.ImportFrom))
        bodies.append('\n'.join(source.splitlines()[max(node.end_lineno for node in head) :]).strip())
    # Sections that a file assigns itself are plain dicts, which have no attributes.
    changes = '\n'.join(re.sub(r'^(\w+)\.(\w+) = ', r"\1['\2'] = ", line) for line in recipe.changes(base))
    return '\n\n'.join([f'"""{recipe.title(base)}"""\n' + '\n'.join(imports), *bodies, changes]) + '\n'


def compose(recipe: Recipe, base: Path) -> Path:
    """Write the preset that `recipe` means into the cache and return its file, which is named after it.

    Raises:
        ConfigError: The cache cannot be written to.
    """
    path = cache_folder('presets') / f'{recipe.name}.py'
    write_text(path, flat_text(recipe, base))
    return path
