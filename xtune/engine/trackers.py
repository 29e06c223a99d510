"""Trackers that a run reports to, `runner.visualizer`: checked before anything slow, and told the hyper-parameters."""

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

# Packages that the trackers of mmengine import when they first write.
_PACKAGES = {
    'WandbVisBackend': ('wandb',),
    'TensorboardVisBackend': ('tensorboard',),
    'MLflowVisBackend': ('mlflow',),
    'ClearMLVisBackend': ('clearml',),
    'NeptuneVisBackend': ('neptune',),
    'DVCLiveVisBackend': ('dvclive', 'pygit2'),
    'AimVisBackend': ('aim',),
}


def visualizer(given: Any, tensorboard: bool) -> Any:
    """Return the visualizer of a run: what the user gave, and TensorBoard beside it if the run writes that.

    Args:
        given: `runner.visualizer`, or None.
        tensorboard: `log.tensorboard`.
    """
    if isinstance(given, Visualizer):
        return given
    settings = dict(given or {})
    settings['type'] = _class_of(VISUALIZERS, settings.get('type', Visualizer))
    backends = [_built_from_class(backend) for backend in _backends(settings)]
    kinds = [backend['type'] if isinstance(backend, dict) else type(backend) for backend in backends]
    if tensorboard and not any(_is_a(kind, 'TensorboardVisBackend') for kind in kinds):
        backends.append(dict(type=VISBACKENDS.get('TensorboardVisBackend')))
    return {**settings, 'vis_backends': backends}


def _backends(settings: dict[str, Any]) -> list:
    backends = settings.get('vis_backends')
    backends = [] if backends is None else backends
    return list(backends) if isinstance(backends, (list, tuple)) else [backends]


def _built_from_class(backend: Any) -> Any:
    if not isinstance(backend, dict):
        return backend
    return {**backend, 'type': _class_of(VISBACKENDS, backend['type'])}


def _is_a(kind: Any, name: str) -> bool:
    return isinstance(kind, type) and any(parent.__name__ == name for parent in kind.__mro__)


def hyper_parameters(config: str) -> Config:
    """Return the options of a run, from the text of its flat config: plain values, and names instead of objects."""
    return Config(_named(to_plain(read_text(config))), format_python_code=False)


def _named(value: Any) -> Any:
    if is_lazy(value):
        return root(value)[1]
    if isinstance(value, dict):
        return {str(key): _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, (list, tuple)) else value


def _class_of(registry: Registry, kind: Any) -> Any:
    """Return the class that `kind` means: a class, a name in `registry`, or the dotted name of a class."""
    if not isinstance(kind, str):
        return kind
    name = kind.removeprefix('mmengine.')
    return named(kind) if '.' in name else lookup(registry, name)


def visualizer_problems(value: Any) -> Iterator[str]:
    """Yield what is wrong with `runner.visualizer`."""
    if isinstance(value, Visualizer):
        return
    if not isinstance(value, dict):
        yield f'runner.visualizer must be a dict such as dict(vis_backends=[dict(type=...)]), got {value!r}'
        return
    arguments = {key: item for key, item in value.items() if key != 'type'}
    yield from _built_problems('runner.visualizer', value.get('type', Visualizer), arguments, VISUALIZERS, Visualizer)
    for number, backend in enumerate(_backends(value)):
        place = f'runner.visualizer.vis_backends[{number}]'
        if isinstance(backend, BaseVisBackend):
            yield from _package_problems(place, type(backend))
        elif not isinstance(backend, dict) or 'type' not in backend:
            yield f'{place} must be a dict with `type`, the name or class of a tracker, got {backend!r}'
        else:
            arguments = {key: item for key, item in backend.items() if key not in ('type', 'name')}
            yield from _built_problems(place, backend['type'], arguments, VISBACKENDS, BaseVisBackend)


def _built_problems(place: str, kind: Any, arguments: dict, registry: Registry, base: type) -> Iterator[str]:
    """Yield the reasons why `kind`, a name in `registry` or a subclass of `base`, cannot be built with `arguments`."""
    try:
        kind = _class_of(registry, kind)
    except ConfigError as error:
        yield f'{place}: {error}'
        return
    if not (isinstance(kind, type) and issubclass(kind, base)):
        yield f'{place}.type must be a subclass of {base.__name__}, got {kind!r}'
        return
    yield from _argument_problems(place, kind, arguments)
    yield from _package_problems(place, kind)


def _argument_problems(place: str, kind: type, arguments: dict) -> Iterator[str]:
    """Yield the reasons why `kind` cannot be called; the runner adds `save_dir`."""
    parameters = inspect.signature(kind).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    needed = {p.name for p in parameters if p.name in known and p.default is p.empty} - {'save_dir'}
    problems = [f'has no argument `{n}`{did_you_mean(n, known)}' for n in arguments if n not in known and not takes_any]
    problems += [f'needs `{name}`' for name in sorted(needed - set(arguments))]
    for problem in problems:
        yield f'{place}: {kind.__name__} {problem}'
    if problems or not kind.__module__.startswith('mmengine.') or not issubclass(kind, BaseVisBackend):
        return
    try:
        kind(**{'save_dir': '.', **arguments})  # this starts nothing yet
    except (TypeError, ValueError, AssertionError) as error:
        yield f'{place}: {kind.__name__} refuses its arguments {arguments}: {str(error) or type(error).__name__}'


def _package_problems(place: str, kind: type) -> Iterator[str]:
    for parent in kind.__mro__:
        for package in _PACKAGES.get(parent.__name__, ()):
            if find_spec(package) is None:
                yield f'{place}: {kind.__name__} needs the package {package}: pip install {package}'
