"""The settings that, besides the trained weights, determine the outputs of a model.

These are the adapter config, the architecture, the quantization, and the identity of the base model.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from ..config.checkpoint_config import stored_sections

# Sections of a config that affect the outputs of the model.
SECTIONS = ('llm', 'quantization')


@dataclass(frozen=True)
class ModelSettings:
    """The settings of a checkpoint, an adapter folder or a run.

    Attributes:
        base: Folder or hub name of the base model.
        adapter: peft's config as in JSON; None: all weights are trained.
        model: config.json of the built model; empty: it is not built yet, or unknown.
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
        """Return the settings in the `meta` of a checkpoint."""
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
    """Return a peft or transformers config as in JSON."""
    values = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    return json.loads(json.dumps(values, default=str))
