"""Lazily imported config objects of mmengine: names in a config that are not imported until they are needed."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyAttr, LazyObject

from ..compat import mmengine_private
from ..errors import ConfigError, did_you_mean
from .deprecated import current_module

Lazy = LazyObject | LazyAttr


def read_text(text: str) -> Config:
    """Read a config from its text. `Config.fromstring` would substitute `{{ }}`, which chat templates contain."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'config.py'
        path.write_text(text, encoding='utf-8')
        return Config.fromfile(str(path), lazy_import=True)


def to_plain(cfg: Config) -> dict:
    """Return the sections of `cfg` as nested plain dicts whose imported names are still lazy."""
    return mmengine_private.lazy_dict(cfg)


def part_names(cfg: Config) -> tuple[dict, set[str]]:
    """Return all names of `cfg` as plain values, imported ones too, and the set of those."""
    return mmengine_private.lazy_dict(cfg, keep_imported=True), mmengine_private.imported_names(cfg)


def from_namespace(names: dict, imported: set[str], path: Path) -> Config:
    """Return the config of the file `path`, which defines `names`; those in `imported` are not sections."""
    values = {name: value for name, value in names.items() if not name.startswith('__')}
    cfg = Config(ConfigDict(values), filename=str(path))
    mmengine_private.set_imported_names(cfg, imported)
    return cfg


def is_lazy(value: Any) -> bool:
    """Return whether `value` stands for an imported name."""
    return isinstance(value, (LazyObject, LazyAttr))


def root(lazy: Lazy) -> tuple[LazyObject, str]:
    """Return the imported object at the root of `lazy` and the dotted expression written in the file."""
    names = []
    while isinstance(lazy, LazyAttr):
        names.insert(0, lazy.name)
        lazy = lazy.source
    return lazy, '.'.join([str(lazy), *names])


def import_of(lazy: Lazy) -> tuple[str, str]:
    """Return (module, name) of the import that `lazy` needs.

    Raises:
        ConfigError: The file imports a whole module, which cannot be quoted.
    """
    source, _ = root(lazy)
    module, name = mmengine_private.import_behind(source)
    if name is None:
        raise ConfigError(f'write `from {source.module} import ...` in a config, not `import {source.module}`')
    return current_module(module), name


def walk(value: Any) -> Iterator[Lazy]:
    """Yield every imported name in `value`."""
    if is_lazy(value):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from walk(item)


def comparable(value: Any) -> Any:
    """Return `value` with imported names replaced by pairs that compare equal when they mean the same object."""
    if is_lazy(value):
        return 'import', import_of(value)[0], root(value)[1]
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [comparable(v) for v in value]
    return type(value).__name__, value


def resolve(value: Any) -> Any:
    """Return `value` with every imported name, at any depth, replaced by the object itself."""
    if is_lazy(value):
        source, _ = root(value)
        mmengine_private.set_module(source, current_module(mmengine_private.import_behind(source)[0]))
        try:
            return value.build()
        except (ImportError, AttributeError) as error:
            module, _ = import_of(value)
            raise ConfigError(f'the config imports {root(value)[1]} from {module}, which fails: {error}') from error
    if isinstance(value, dict):
        return {k: resolve(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(v) for v in value)
    return value


def named(thing: Any) -> Any:
    """Return the object that a dotted name (`torch.optim.AdamW`) stands for; anything but a string as it is.

    Raises:
        ConfigError: There is no such module or no such name in it.
    """
    if not isinstance(thing, str):
        return thing
    thing = current_module(thing)
    parts = thing.split('.')
    for cut in range(len(parts) - 1, 0, -1):
        try:
            target = import_module('.'.join(parts[:cut]))
        except ValueError:  # an empty part
            continue
        except ModuleNotFoundError as error:
            if thing.startswith(f'{error.name}.') and '.' in str(error.name):  # a class, which is looked up next
                continue
            raise ConfigError(f'`{thing}` needs the package `{error.name}`, which is not installed') from error
        except (ImportError, OSError, RuntimeError) as error:  # of a library that does not fit this machine
            raise ConfigError(f'`{thing}` cannot be imported: {error}') from error
        for name in parts[cut:]:
            if not hasattr(target, name):
                raise ConfigError(f'`{thing}`: {target.__name__} has no `{name}`{did_you_mean(name, dir(target))}')
            target = getattr(target, name)
        return target
    raise ConfigError(f'`{thing}` cannot be imported; write it as module.name, such as torch.optim.AdamW')
