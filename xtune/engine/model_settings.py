"""What decides the function that a model computes, besides the weights that are trained: settings of the adapter, of
the architecture, of the quantization, and which base it is.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from ..config.checkpoint_config import stored_sections

SECTIONS = ('llm', 'quantization')


@dataclass(frozen=True)
class ModelSettings:
    """The settings that determine the function of a model, beside its trained weights.

    Args:
        base: Folder or hub name of the base model.
        adapter: peft's config as JSON has it; None: all weights are trained.
        model: The config.json of the model as it was built; empty: it is not built yet.
        sections: The sections `llm` and `quantization` of the config.
        base_fingerprint: See `weight_fingerprint`; empty if unknown.
    """

    base: str
    adapter: dict | None
    model: dict = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    base_fingerprint: str = ''

    @classmethod
    def of_meta(cls, meta: dict) -> 'ModelSettings':
        """Return that of a checkpoint's `meta`."""
        export = meta['export']
        adapter = export['adapter_config']
        return cls(
            export['base_model'],
            None if adapter is None else json.loads(adapter),
            json.loads(export['model_config']),
            stored_sections(meta.get('config', ''), SECTIONS),
            meta.get('base_fingerprint', meta.get('base_mark', '')),  # 'base_mark': in older checkpoints
        )


def plain(config: Any) -> dict:
    """Return a peft or transformers config as its JSON has it."""
    values = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    return json.loads(json.dumps(values, default=str))
