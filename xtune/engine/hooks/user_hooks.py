"""The user's hooks, `runner.custom_hooks`: resolved and checked before slow work.

The runner looks up names only in mmengine's registry. It therefore receives classes, so that the checks and the run
resolve a name identically, in whichever registry it is.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.hooks import Hook

from ...errors import ConfigError, did_you_mean
from ...registry import HOOKS, lookup

# Keys that the runner removes before it builds the hook.
_RUNNER_KEYS = ('type', 'priority')
# Hook methods for mmengine's own checkpoint files, which xtune does not write.
_UNSUPPORTED_METHODS = ('before_save_checkpoint', 'after_load_checkpoint')


def resolve_custom_hooks(hooks: Any) -> list[Hook | dict[str, Any]]:
    """Return `runner.custom_hooks` with a class as each `type`; hook objects are returned as they are.

    Raises:
        ConfigError: It is not a list of hooks, a name is not registered, or a hook cannot be built from its arguments.
    """
    if hooks is None:
        return []
    if not isinstance(hooks, (list, tuple)):
        raise ConfigError(f'runner.custom_hooks must be a list of hooks such as [dict(type=...)], got {hooks!r}')
    return [_resolve_hook(f'runner.custom_hooks[{number}]', hook) for number, hook in enumerate(hooks)]


def _resolve_hook(place: str, hook: Any) -> Hook | dict[str, Any]:
    if isinstance(hook, Hook):
        _check_methods(place, type(hook))
        return hook
    hook_type = hook.get('type') if isinstance(hook, dict) else None
    if isinstance(hook_type, str):
        hook_type = lookup(HOOKS, hook_type)
    if not callable(hook_type):
        raise ConfigError(f'{place} must be a dict with `type`, the name or class of a hook; got {hook!r}')
    if isinstance(hook_type, type) and not issubclass(hook_type, Hook):
        raise ConfigError(f'{place}.type={hook_type.__name__} is not a subclass of mmengine.hooks.Hook')
    if isinstance(hook_type, type):
        _check_methods(place, hook_type)
    errors = list(_argument_errors(hook_type, [name for name in hook if name not in _RUNNER_KEYS]))
    if errors:
        raise ConfigError(f'{place}: {getattr(hook_type, "__name__", hook_type)} {"; ".join(errors)}')
    return {**hook, 'type': hook_type}


def _check_methods(place: str, hook_type: type) -> None:
    for name in _UNSUPPORTED_METHODS:
        if getattr(hook_type, name) is not getattr(Hook, name):
            raise ConfigError(
                f'{place}: {hook_type.__name__} implements {name}, which is never called: checkpoints of xtune do not '
                'contain the state of hooks. Remove this hook'
            )


def _argument_errors(hook_type: Callable, names: list[str]) -> Iterator[str]:
    """Yield the reasons why `hook_type` cannot be called with arguments of these names."""
    try:
        parameters = inspect.signature(hook_type).parameters.values()
    except ValueError:  # implemented in C
        return
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in names:
            if name not in known:
                yield f'has no argument `{name}`{did_you_mean(name, known)}'
    for parameter in parameters:
        if parameter.name in known and parameter.default is parameter.empty and parameter.name not in names:
            yield f'needs `{parameter.name}`'
