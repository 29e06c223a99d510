"""The project's registries: a config may name a thing by its registered name instead of importing it.

The built-in ones register themselves where they are defined; a module of the user's comes in through `custom_imports`.
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
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope='xtune', locations=['xtune.engine.strategy'])
# A task is what is trained with which loss: a mmengine model.
TASKS = Registry('task', parent=MMENGINE_MODELS, scope='xtune', locations=['xtune.tasks.sft'])


def lookup(registry: Registry, name: str) -> Any:
    """Return the thing registered as `name`.

    Raises:
        ConfigError: Nothing is registered under that name; the message names close ones.
    """
    known = {}
    for one in (registry, registry.parent):
        if one is not None:
            one.import_from_location()
            known = {**one.module_dict, **known}
    found = known.get(name)
    if found is None and name and registry.parent is not None:
        found = registry.get(name)  # with a scope, or the dotted path of a class
    if found is None:
        close = did_you_mean(name.rpartition('.')[2], known)
        raise ConfigError(
            f'no {registry.name} is registered as `{name}`{close or "."} '
            f'Known: {", ".join(sorted(registry.module_dict))}. One of your own needs its module in custom_imports.'
        )
    return found


def map_fn(name: str) -> Callable[[Callable], Callable]:
    """Register the decorated function as the map function `name`."""
    return MAP_FNS.register_module(name=name)
