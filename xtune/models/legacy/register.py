"""Make transformers know the model type of Baichuan 13B as soon as both packages are imported, in either order.

`import xtune` stays cheap: neither transformers nor torch is imported for it. If transformers comes later, its own
registry is what waits for it: the registration runs when that module is imported.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_REGISTRY = 'transformers.models.auto.configuration_auto'


def register_when_needed() -> None:
    """Register now if transformers' registry is imported already, else when it is."""
    if _REGISTRY in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Waiting())


def _register() -> None:
    config = import_module('.alibi_config', __package__)
    registry = import_module(_REGISTRY)
    registry.AutoConfig.register(config.MODEL_TYPE, config.BaichuanAlibiConfig, exist_ok=True)


class _Waiting(MetaPathFinder):
    """Finds nothing itself; adds the registration to the import of the registry, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """The loader of the registry, and the registration after it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        module.__loader__ = module.__spec__.loader = self.loader
        _register()
