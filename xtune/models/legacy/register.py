"""Register the model type of Baichuan 13B with transformers when both packages are imported, in either order.

`import xtune` stays cheap: it imports neither transformers nor torch. If transformers is imported later, an import hook
runs the registration after transformers' registry module was loaded.
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
    """Register now if transformers' registry is already imported, else as soon as it is."""
    if _REGISTRY in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _RegistryFinder())


def _register() -> None:
    config = import_module('.alibi_config', __package__)
    registry = import_module(_REGISTRY)
    registry.AutoConfig.register(config.MODEL_TYPE, config.BaichuanAlibiConfig, exist_ok=True)


class _RegistryFinder(MetaPathFinder):
    """Wraps the loader of the registry module once; finds no modules itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    """Loads the registry module with its own loader, then registers the model type."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        module.__loader__ = module.__spec__.loader = self.loader
        _register()
