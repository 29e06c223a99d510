"""Private names of mmengine 0.10 in its config objects. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyObject


def lazy_dict(cfg: Config, keep_imported: bool = False) -> dict[str, Any]:
    """Return the sections of `cfg` as nested plain dicts without importing what they name.

    The public `Config.to_dict` imports it.

    Args:
        cfg: The config.
        keep_imported: Imported names are sections too.
    """
    return cfg._to_lazy_dict(keep_imported=keep_imported)


def imported_names(cfg: Config) -> set[str]:
    """Return the names that the file of `cfg` imports; nothing public tells them from its sections."""
    return set(cfg._imported_names)


def set_imported_names(cfg: Config, names: set[str]) -> None:
    """Set these names of a config that was made of a dict, for which the constructor has no argument."""
    object.__setattr__(cfg, '_imported_names', names)


def config_dict(cfg: Config) -> ConfigDict:
    """Return the sections themselves; attribute access on `cfg` imports what a section names."""
    return cfg._cfg_dict


def import_behind(lazy: LazyObject) -> tuple[str, str | None]:
    """Return the module and the name that `lazy` stands for; None for the name: the module itself.

    The public `LazyObject.build` imports it.
    """
    module = lazy._module
    return (module if isinstance(module, str) else module[0]), lazy._imported


def set_module(lazy: LazyObject, module: str) -> None:
    """Import what `lazy` stands for from `module` instead; the public class has no setter."""
    if isinstance(lazy._module, str):
        lazy._module = module


@contextmanager
def reading_lazily() -> Iterator[None]:
    """Return a context in which values of a ConfigDict are read without importing what they name.

    The switch is an undocumented attribute of the class.
    """
    before, ConfigDict.lazy = ConfigDict.lazy, True
    try:
        yield
    finally:
        ConfigDict.lazy = before
