"""Registries: a config may give the registered name of an object instead of importing it.

Built-in objects are registered where they are defined. User modules are imported through `custom_imports`.
"""

from collections.abc import Callable
from typing import Any

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import Registry

from .errors import ConfigError, did_you_mean

MAP_FNS = Registry('map function', scope='xtune', locations=['xtune.data.map_fns'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='xtune', locations=['xtune.engine.hooks'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='xtune', locations=['xtune.engine.loop'])
STRATEGIES = Registry(
    'strategy', parent=MMENGINE_STRATEGIES, scope='xtune', locations=['xtune.engine.checkpoint_strategy']
)
# A task is an mmengine model that combines the trained network and its loss.
TASKS = Registry('task', parent=MMENGINE_MODELS, scope='xtune', locations=['xtune.tasks.sft'])


def lookup(registry: Registry, name: str) -> Any:
    """Return the object registered as `name`.

    Raises:
        ConfigError: No object is registered under that name; the message contains similar names.
    """
    known = {}
    for level in (registry, registry.parent):
        if level is not None:
            level.import_from_location()
            known = {**level.module_dict, **known}
    registered = known.get(name)
    if registered is None and name and registry.parent is not None:
        registered = registry.get(name)  # with a scope, or the dotted path of a class
    if registered is None:
        close = did_you_mean(name.rpartition('.')[2], known)
        raise ConfigError(
            f'no {registry.name} is registered as `{name}`{close or "."} '
            f'Known: {", ".join(sorted(registry.module_dict))}. List the module of your own {registry.name} in '
            'custom_imports.'
        )
    return registered


def map_fn(name: str) -> Callable[[Callable], Callable]:
    """Register the decorated function as the map function `name`."""
    return MAP_FNS.register_module(name=name)
