"""A preset by its name: its config, what it is made of, and how it is changed to run on a small copy."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from xtune.config.compose import Recipe, parse
from xtune.config.load import load
from xtune.config.presets import find, presets
from xtune.config.sections import Source
from xtune.config.wire import wire

from .copies import make_copy
from .results import NOT_RUN, Result
from .rows import rows_file
from .settings import CHANGED, LONGER

_recipe = cache(parse)


@dataclass
class Preset:
    """A preset by its name: what it is made of, and its config."""

    name: str
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        self.recipe = _recipe(presets()[self.name].composed)

    @property
    def path(self) -> Path:
        """The file that it is composed into."""
        return find(self.name)

    @property
    def parts(self) -> dict[str, str]:
        """The names of its model, method and data set."""
        return dict(models=self.recipe.model, methods=self.recipe.method, datasets=self.recipe.dataset)

    @property
    def family(self) -> str:
        """The heading that list-cfg shows it under."""
        return presets()[self.name].family

    @property
    def alias(self) -> str:
        """The preset that this is another name of, or an empty string."""
        composed = presets()[self.name].composed
        return composed if composed != self.name and composed in presets() else ''

    def result(self, **found: Any) -> Result:
        """Return a result with what it is made of and what was found out; without that, it was not run."""
        return Result(
            self.name,
            self.family,
            *self.parts.values(),
            load(self.path).chat_template,
            **(found or dict(reason=NOT_RUN)),
        )

    def options(self, folder: Path) -> dict[str, object]:
        """Return the changes that let it train on a copy of its model and on local rows below `folder`."""
        cfg = load(self.path)
        job = wire(cfg, self.name)
        options = {'base_model': str(make_copy(self.parts['models'], job.values.base_model, folder / 'models'))}
        many = isinstance(cfg.train_dataset, (list, tuple))
        for number, source in enumerate(job.train_sources):
            name = map_fn_name(source)
            if source.path != 'self_cognition':
                key = f'train_dataset.{number}' if many else 'train_dataset'
                options[f'{key}.path'] = str(rows_file(folder / 'data', name, source.path))
                if source.name:
                    options[f'{key}.name'] = None  # a file has no configurations
            options |= CHANGED if name not in LONGER else {**CHANGED, 'max_length': LONGER[name]}
        return options


def map_fn_name(source: Source) -> str:
    """Return the registered name of a source's map function."""
    name = getattr(source.map_fn, '__name__', source.map_fn)
    return name.removesuffix('_map_fn')


@cache
def leading() -> frozenset[str]:
    """Return the names that run all stages: the first preset of each model and method."""
    first: dict[tuple[str, str], str] = {}
    for name in presets():
        parts = Preset(name).parts
        first.setdefault((parts['models'], parts['methods']), name)
    return frozenset(first.values())
