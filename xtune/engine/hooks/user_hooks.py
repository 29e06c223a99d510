"""The user's hooks, `runner.custom_hooks`: found and checked before anything slow.

The runner looks names up in mmengine's registry alone, so it is given classes: a name means the same in a check and in
a run, whichever registry has it.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.hooks import Hook

from ...errors import ConfigError, did_you_mean
from ...registry import HOOKS, lookup

# What the runner takes out of a hook's section before it builds the hook.
_OF_THE_RUNNER = ('type', 'priority')
# What mmengine asks hooks for around its own checkpoint files, which are not those of a run here.
_NEVER_CALLED = ('before_save_checkpoint', 'after_load_checkpoint')


def resolve_custom_hooks(hooks: Any) -> list[Hook | dict[str, Any]]:
    """Return `runner.custom_hooks` with a class as each `type`; hooks that are built already stay.

    Raises:
        ConfigError: It is no list of hooks, a name is not registered, or a hook cannot be built from its arguments.
    """
    if hooks is None:
        return []
    if not isinstance(hooks, (list, tuple)):
        raise ConfigError(f'runner.custom_hooks is a list of hooks such as [dict(type=...)], got {hooks!r}')
    return [_given(f'runner.custom_hooks[{number}]', hook) for number, hook in enumerate(hooks)]


def _given(place: str, hook: Any) -> Hook | dict[str, Any]:
    if isinstance(hook, Hook):
        _check_called(place, type(hook))
        return hook
    kind = hook.get('type') if isinstance(hook, dict) else None
    if isinstance(kind, str):
        kind = lookup(HOOKS, kind)
    if not callable(kind):
        raise ConfigError(f'{place} must be a dict with `type`, the name or class of a hook; got {hook!r}')
    if isinstance(kind, type) and not issubclass(kind, Hook):
        raise ConfigError(f'{place}.type={kind.__name__} is no subclass of mmengine.hooks.Hook')
    if isinstance(kind, type):
        _check_called(place, kind)
    problems = list(_problems(kind, [name for name in hook if name not in _OF_THE_RUNNER]))
    if problems:
        raise ConfigError(f'{place}: {getattr(kind, "__name__", kind)} {"; ".join(problems)}')
    return {**hook, 'type': kind}


def _check_called(place: str, kind: type) -> None:
    for name in _NEVER_CALLED:
        if getattr(kind, name) is not getattr(Hook, name):
            raise ConfigError(
                f'{place}: {kind.__name__} keeps what it does in checkpoints ({name}), and those of xtune hold the '
                'trained weights alone, so its work would be lost: leave it out'
            )


def _problems(kind: Callable, names: list[str]) -> Iterator[str]:
    """Yield the reasons why `kind` cannot be called with arguments of these names."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # written in C
        return
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in names:
            if name not in known:
                yield f'has no argument `{name}`{did_you_mean(name, known)}'
    for parameter in parameters:
        if parameter.name in known and parameter.default is parameter.empty and parameter.name not in names:
            yield f'needs `{parameter.name}`'
