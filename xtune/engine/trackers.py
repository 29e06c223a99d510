"""The experiment trackers of a run, `runner.visualizer`: checked before slow work; they receive the hyperparameters."""

import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS, VISUALIZERS, Registry
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from ..config.lazy import is_lazy, named, read_text, root, to_plain
from ..errors import ConfigError, did_you_mean
from ..registry import lookup

# Packages that mmengine's trackers import at their first write.
_PACKAGES = {
    'WandbVisBackend': ('wandb',),
    'TensorboardVisBackend': ('tensorboard',),
    'MLflowVisBackend': ('mlflow',),
    'ClearMLVisBackend': ('clearml',),
    'NeptuneVisBackend': ('neptune',),
    'DVCLiveVisBackend': ('dvclive', 'pygit2'),
    'AimVisBackend': ('aim',),
}


def visualizer(section: Any, tensorboard: bool) -> Any:
    """Return the visualizer of a run: the user's trackers, and TensorBoard if enabled.

    Args:
        section: `runner.visualizer`, or None.
        tensorboard: `log.tensorboard`.
    """
    if isinstance(section, Visualizer):
        return section
    settings = dict(section or {})
    settings['type'] = _class_of(VISUALIZERS, settings.get('type', Visualizer))
    backends = [_with_class(backend) for backend in _backends(settings)]
    classes = [backend['type'] if isinstance(backend, dict) else type(backend) for backend in backends]
    if tensorboard and not any(_has_base(tracker_class, 'TensorboardVisBackend') for tracker_class in classes):
        backends.append(dict(type=VISBACKENDS.get('TensorboardVisBackend')))
    return {**settings, 'vis_backends': backends}


def _backends(settings: dict[str, Any]) -> list:
    backends = settings.get('vis_backends')
    backends = [] if backends is None else backends
    return list(backends) if isinstance(backends, (list, tuple)) else [backends]


def _with_class(backend: Any) -> Any:
    if not isinstance(backend, dict):
        return backend
    return {**backend, 'type': _class_of(VISBACKENDS, backend['type'])}


def _has_base(tracker_class: Any, name: str) -> bool:
    return isinstance(tracker_class, type) and any(base.__name__ == name for base in tracker_class.__mro__)


def hyperparameters(config: str) -> Config:
    """Return the options of a run from its flat config: plain values, and dotted names instead of objects."""
    return Config(_with_names(to_plain(read_text(config))), format_python_code=False)


def _with_names(value: Any) -> Any:
    if is_lazy(value):
        return root(value)[1]
    if isinstance(value, dict):
        return {str(key): _with_names(item) for key, item in value.items()}
    return [_with_names(item) for item in value] if isinstance(value, (list, tuple)) else value


def _class_of(registry: Registry, class_or_name: Any) -> Any:
    """Return a class from itself, its name in `registry`, or its dotted name."""
    if not isinstance(class_or_name, str):
        return class_or_name
    name = class_or_name.removeprefix('mmengine.')
    return named(class_or_name) if '.' in name else lookup(registry, name)


def visualizer_problems(value: Any) -> Iterator[str]:
    """Yield the errors in `runner.visualizer`."""
    if isinstance(value, Visualizer):
        return
    if not isinstance(value, dict):
        yield f'runner.visualizer must be a dict such as dict(vis_backends=[dict(type=...)]), got {value!r}'
        return
    arguments = {key: item for key, item in value.items() if key != 'type'}
    yield from _build_problems('runner.visualizer', value.get('type', Visualizer), arguments, VISUALIZERS, Visualizer)
    for number, backend in enumerate(_backends(value)):
        place = f'runner.visualizer.vis_backends[{number}]'
        if isinstance(backend, BaseVisBackend):
            yield from _package_problems(place, type(backend))
        elif not isinstance(backend, dict) or 'type' not in backend:
            yield f'{place} must be a dict with `type`, the name or class of a tracker, got {backend!r}'
        else:
            arguments = {key: item for key, item in backend.items() if key not in ('type', 'name')}
            yield from _build_problems(place, backend['type'], arguments, VISBACKENDS, BaseVisBackend)


def _build_problems(place: str, class_or_name: Any, arguments: dict, registry: Registry, base: type) -> Iterator[str]:
    """Yield the reasons why a subclass of `base`, or its name in `registry`, cannot be built with `arguments`."""
    try:
        tracker_class = _class_of(registry, class_or_name)
    except ConfigError as error:
        yield f'{place}: {error}'
        return
    if not (isinstance(tracker_class, type) and issubclass(tracker_class, base)):
        yield f'{place}.type must be a subclass of {base.__name__}, got {tracker_class!r}'
        return
    yield from _argument_problems(place, tracker_class, arguments)
    yield from _package_problems(place, tracker_class)


def _argument_problems(place: str, tracker_class: type, arguments: dict) -> Iterator[str]:
    """Yield the reasons why the class does not accept `arguments`; the runner adds `save_dir`."""
    parameters = inspect.signature(tracker_class).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    needed = {p.name for p in parameters if p.name in known and p.default is p.empty} - {'save_dir'}
    problems = [f'has no argument `{n}`{did_you_mean(n, known)}' for n in arguments if n not in known and not takes_any]
    problems += [f'needs `{name}`' for name in sorted(needed - set(arguments))]
    for problem in problems:
        yield f'{place}: {tracker_class.__name__} {problem}'
    if problems or not (tracker_class.__module__.startswith('mmengine.') and issubclass(tracker_class, BaseVisBackend)):
        return
    try:
        tracker_class(**{'save_dir': '.', **arguments})  # has no side effects yet
    except (TypeError, ValueError, AssertionError) as error:
        reason = str(error) or type(error).__name__
        yield f'{place}: {tracker_class.__name__} rejects its arguments {arguments}: {reason}'


def _package_problems(place: str, tracker_class: type) -> Iterator[str]:
    for base in tracker_class.__mro__:
        for package in _PACKAGES.get(base.__name__, ()):
            if find_spec(package) is None:
                yield f'{place}: {tracker_class.__name__} needs the package {package}: pip install {package}'
