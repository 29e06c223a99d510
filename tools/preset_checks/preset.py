"""A preset: its config, its parts, and the options with which it runs on a small copy of its model."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from xtune.config.compose import Recipe
from xtune.config.load import load
from xtune.config.preset_names import parse
from xtune.config.presets import find, presets
from xtune.config.sections import Source
from xtune.config.wire import wire

from .example_rows import rows_file
from .model_copies import make_copy
from .overrides import LONG_SAMPLES, OVERRIDES
from .results import NOT_RUN, Result

_recipe = cache(parse)


@dataclass
class Preset:
    """A preset, by name."""

    name: str
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        self.recipe = _recipe(presets()[self.name].composed)

    @property
    def path(self) -> Path:
        """The file of the composed preset."""
        return find(self.name)

    @property
    def parts(self) -> dict[str, str]:
        """The names of the model, method and data set parts."""
        return dict(models=self.recipe.model, methods=self.recipe.method, datasets=self.recipe.dataset)

    @property
    def family(self) -> str:
        """The heading of the preset in list-cfg."""
        return presets()[self.name].family

    @property
    def alias(self) -> str:
        """The preset of which this is an alias, or an empty string."""
        composed = presets()[self.name].composed
        return composed if composed != self.name and composed in presets() else ''

    def result(self, **outcome: Any) -> Result:
        """Return a result with the parts of the preset and the fields `outcome`; without them, it is 'not run'."""
        return Result(
            self.name,
            self.family,
            *self.parts.values(),
            load(self.path).chat_template,
            **(outcome or dict(reason=NOT_RUN)),
        )

    def options(self, folder: Path) -> dict[str, object]:
        """Return the options with which the preset trains on a copy of its model and local data in `folder`."""
        cfg = load(self.path)
        job = wire(cfg, self.name)
        options = {'base_model': str(make_copy(self.parts['models'], job.values.base_model, folder / 'models'))}
        is_list = isinstance(cfg.train_dataset, (list, tuple))
        for number, source in enumerate(job.train_sources):
            name = map_fn_name(source)
            if source.path != 'self_cognition':
                key = f'train_dataset.{number}' if is_list else 'train_dataset'
                options[f'{key}.path'] = str(rows_file(folder / 'data', name, source.path))
                if source.name:
                    options[f'{key}.name'] = None  # a local file has no named configuration
            options |= OVERRIDES if name not in LONG_SAMPLES else {**OVERRIDES, 'max_length': LONG_SAMPLES[name]}
        return options


def map_fn_name(source: Source) -> str:
    """Return the registered name of the map function of `source`."""
    name = getattr(source.map_fn, '__name__', source.map_fn)
    return name.removesuffix('_map_fn')


@cache
def first_of_each_combination() -> frozenset[str]:
    """Return the first preset of each combination of model and method; these run all stages."""
    first: dict[tuple[str, str], str] = {}
    for name in presets():
        parts = Preset(name).parts
        first.setdefault((parts['models'], parts['methods']), name)
    return frozenset(first.values())
