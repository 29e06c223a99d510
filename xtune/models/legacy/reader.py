"""Read the keys of an old config.json, and say which is wrong and what it should be."""

from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean


class Reader:
    """Reads keys of a config.json and says what is wrong with them."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder, self.values = folder, values

    def count(self, key: str, default: int | None = None) -> int:
        """Return a positive whole number; without a default, the key must be there."""
        value = self.values.get(key, default)
        if value is None:
            raise ModelError(f'{self.folder}/config.json has no `{key}`, so the model cannot be built')
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f'{self.folder}/config.json: `{key}` must be a positive whole number, got {value!r}')
        return value

    def number(self, key: str, default: float, values: dict[str, Any] | None = None) -> float:
        """Return a positive number, of `values` if given."""
        value = (self.values if values is None else values).get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise ModelError(f'{self.folder}/config.json: `{key}` must be a positive number, got {value!r}')
        return float(value)

    def demand(self, reason: str, **wanted: Any) -> None:
        """Refuse other values than `wanted`; the message says that only these `reason`."""
        for key, value in wanted.items():
            if self.values.get(key) != value:
                raise ModelError(
                    f'{self.folder}/config.json: `{key}` is {self.values.get(key)!r}, and only {value!r} {reason}'
                )

    def activation(self) -> str:
        """Return `hidden_act`, one that transformers knows."""
        from transformers.activations import ACT2FN

        name = self.values.get('hidden_act', 'silu')
        if name not in ACT2FN:
            raise ModelError(
                f'{self.folder}/config.json: no `hidden_act` is called `{name}`{did_you_mean(name, ACT2FN)}'
            )
        return name

    def dtype(self) -> str | None:
        """Return the stored type: a floating-point type of torch, or None if nothing names one."""
        import torch

        name = self.values.get('torch_dtype') or self.values.get('dtype')
        found = getattr(torch, str(name).removeprefix('torch.'), None)
        if name is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
            near = did_you_mean(name, ('float16', 'bfloat16', 'float32'))
            raise ModelError(f'{self.folder}/config.json: `torch_dtype` is {name!r}, no floating-point type{near}')
        return name

    def common(self, **defaults: Any) -> dict[str, Any]:
        """Return what every config takes: token ids, initialisation, stored type, shared embeddings."""
        kept = dict(initializer_range=self.number('initializer_range', 0.02))
        for key in ('bos_token_id', 'eos_token_id', 'pad_token_id'):
            kept[key] = self.values.get(key, defaults.get(key))
        kept['dtype'] = self.dtype()
        kept['tie_word_embeddings'] = bool(self.values.get('tie_word_embeddings', False))
        return kept
