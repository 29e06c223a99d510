"""Write an adapter folder, and the non-weight files of a model folder: tokenizer, chat template, stop tokens.

The folders load in transformers and peft without xtune. `ExportInfo` has everything they need besides the tensors;
every checkpoint stores it as text, so a .pth can be converted without building the model that was trained.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..config.specs import ModelSpec
from .config_overrides import write_overrides
from .probe_logits import Probe
from .transformers4_tokenizer import write_tokenizer


@dataclass(frozen=True)
class ExportInfo:
    """Everything an export needs besides the tensors, as text.

    Attributes:
        base_model: Folder or hub name of the base.
        model_config: The base's config.json.
        dtype: The stored type of the base's weights.
        generation_config: generation_config.json of the export.
        chat_template: The chat template of the training.
        adapter_config: adapter_config.json of peft; None after full fine-tuning.
        vocabulary: Hash of the tokenizer's tokens and ids; None in checkpoints of earlier versions.
        config_overrides: The model settings, as JSON, that differ from the base's config.json.
    """

    base_model: str
    model_config: str
    dtype: str
    generation_config: str
    chat_template: str
    adapter_config: str | None
    vocabulary: str | None = None
    config_overrides: str = '{}'

    def to_dict(self) -> dict:
        """Return a dict of plain values for a checkpoint."""
        return asdict(self)


def export_info(
    llm: torch.nn.Module,
    base_model: str,
    stored_dtype: str,
    template: str,
    stop_ids: list[int],
    tokenizer: PreTrainedTokenizerBase,
    overrides: dict | None = None,
) -> ExportInfo:
    """Return the export info of `llm`."""
    adapter = None
    if isinstance(llm, PeftModel):
        values = llm.peft_config['default'].to_dict()
        values.update(inference_mode=True, base_model_name_or_path=base_model)
        values = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
        adapter = json.dumps(values, indent=2, sort_keys=True, default=str)
    generation = getattr(llm, 'generation_config', None) or GenerationConfig()
    return ExportInfo(
        base_model=base_model,
        model_config=json.dumps(_plain_config(llm.config.to_dict(), stored_dtype), default=str),
        dtype=stored_dtype,
        generation_config=json.dumps(_generation(generation.to_dict(), stop_ids)),
        chat_template=template,
        adapter_config=adapter,
        vocabulary=vocabulary_hash(tokenizer),
        config_overrides=json.dumps(overrides or {}),
    )


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all tokens and ids of `tokenizer`."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def _plain_config(values: dict, dtype: str) -> dict:
    dropped = ('quantization_config', '_name_or_path', '_model_name_or_path', 'auto_map')
    return {k: v for k, v in values.items() if k not in dropped} | dict(dtype=dtype, use_cache=True)


def _generation(values: dict, stop_ids: list[int]) -> dict:
    kept = {k: v for k, v in values.items() if v is not None and not k.startswith('_') and k != 'transformers_version'}
    kept.setdefault('pad_token_id', stop_ids[-1])
    return kept | dict(eos_token_id=stop_ids)


def write_adapter(
    folder: Path, state: dict, info: ExportInfo, tokenizer: PreTrainedTokenizerBase, probe: Probe | None = None
) -> None:
    """Write adapter_model.safetensors, adapter_config.json and the files of `write_extras`."""
    write_weights(folder, state, info)
    write_overrides(folder, info.base_model, json.loads(info.config_overrides))
    write_extras(folder, info, tokenizer, probe)


def write_weights(folder: Path, state: dict, info: ExportInfo) -> None:
    """Write adapter_model.safetensors and adapter_config.json."""
    save_file(unshared(state), folder / 'adapter_model.safetensors', metadata={'format': 'pt'})
    (folder / 'adapter_config.json').write_text(info.adapter_config + '\n', encoding='utf-8')


def unshared(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous tensors that share no memory, as safetensors requires; tied ones are written twice."""
    seen, tensors = set(), {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.contiguous().clone() if storage in seen else tensor.contiguous()
        seen.add(storage)
    return tensors


def write_extras(
    folder: Path, info: ExportInfo, tokenizer: PreTrainedTokenizerBase, probe: Probe | None = None
) -> None:
    """Write tokenizer, chat template, generation_config.json with the stop tokens, and the probe logits."""
    if probe is not None:
        probe.write(folder)
    write_tokenizer(folder, tokenizer, info.chat_template)
    text = json.dumps(json.loads(info.generation_config), indent=2)
    (folder / 'generation_config.json').write_text(text + '\n', encoding='utf-8')


def stored_dtype(spec: ModelSpec, llm: torch.nn.Module) -> str:
    """Return the type of the base's stored weights, which merged and exported weights keep."""
    from transformers import AutoConfig

    from ..models.legacy.hub import legacy_folder
    from ..models.legacy.load import legacy_dtype

    section = spec.load_llm.keywords
    folder = legacy_folder(spec.base_model, revision=section.get('revision'))
    if folder is not None:
        return str(legacy_dtype(folder, section.get('variant'))).removeprefix('torch.')
    arguments = {key: value for key, value in section.items() if key in ('trust_remote_code', 'revision')}
    config = AutoConfig.from_pretrained(spec.base_model, **{'trust_remote_code': False, **arguments})
    return str(getattr(config, 'dtype', None) or llm.dtype).removeprefix('torch.')
