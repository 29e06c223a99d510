"""Read and validate keys of a 2023 remote-code checkpoint's config.json."""

from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean


class ConfigReader:
    """Reads keys of a config.json; an invalid value raises ModelError with the key and the value."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder, self.values = folder, values

    def count(self, key: str, default: int | None = None) -> int:
        """Return a positive integer; without a default the key is required."""
        value = self.values.get(key, default)
        if value is None:
            raise ModelError(f'{self.folder}/config.json has no `{key}`, which the model needs')
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f'{self.folder}/config.json: `{key}` must be a positive whole number, got {value!r}')
        return value

    def number(self, key: str, default: float, values: dict[str, Any] | None = None) -> float:
        """Return a positive number, from `values` instead of the config if given."""
        value = (self.values if values is None else values).get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise ModelError(f'{self.folder}/config.json: `{key}` must be a positive number, got {value!r}')
        return float(value)

    def require(self, **supported: Any) -> None:
        """Refuse values of keys other than the `supported` ones."""
        for key, value in supported.items():
            if self.values.get(key) != value:
                raise ModelError(
                    f'{self.folder}/config.json: `{key}` is {self.values.get(key)!r}, but only {value!r} is supported'
                )

    def activation(self) -> str:
        """Return `hidden_act`; refuse an activation that transformers does not know."""
        from transformers.activations import ACT2FN

        name = self.values.get('hidden_act', 'silu')
        if name not in ACT2FN:
            raise ModelError(
                f'{self.folder}/config.json: `hidden_act` is unknown: `{name}`{did_you_mean(name, ACT2FN)}'
            )
        return name

    def dtype(self) -> str | None:
        """Return the name of the stored floating-point type; None if the config has none."""
        import torch

        name = self.values.get('torch_dtype') or self.values.get('dtype')
        dtype = getattr(torch, str(name).removeprefix('torch.'), None)
        if name is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            close = did_you_mean(name, ('float16', 'bfloat16', 'float32'))
            raise ModelError(f'{self.folder}/config.json: `torch_dtype` is {name!r}, not a floating-point type{close}')
        return name

    def common(self, **defaults: Any) -> dict[str, Any]:
        """Return the arguments of every config class: token ids, initializer range, stored type, tied embeddings."""
        arguments = dict(initializer_range=self.number('initializer_range', 0.02))
        for key in ('bos_token_id', 'eos_token_id', 'pad_token_id'):
            arguments[key] = self.values.get(key, defaults.get(key))
        arguments['dtype'] = self.dtype()
        arguments['tie_word_embeddings'] = bool(self.values.get('tie_word_embeddings', False))
        return arguments
