"""Write an adapter or a whole model as a Hugging Face folder, with tokenizer, template and stop tokens.

The folder loads in transformers and peft without xtune. `ExportInfo` is what it needs besides the tensors; every
checkpoint carries it as text, so a .pth can be converted without building the model it was trained on.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..config.wire import Job
from .config_overrides import write_overrides
from .probe_logits import Probe
from .transformers4_tokenizer import write_tokenizer


@dataclass(frozen=True)
class ExportInfo:
    """All fields are text or plain values.

    `adapter_config` is peft's JSON, None after full fine-tuning; `model_config` is the base's config.json;
    `dtype` the type in which the base's weights are stored; `vocabulary` a hash of the tokenizer's tokens and ids, None
    in checkpoints of earlier versions; `config_overrides` the settings, as JSON, that the model was trained with and
    the base's config.json has otherwise.
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
        """Return a form that a checkpoint can hold."""
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
    """Return what an export of `llm` needs besides its trained tensors."""
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
    """Return a hash that differs if any token or id of `tokenizer` does."""
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
    """Write adapter_model.safetensors, adapter_config.json and what `write_extras` writes."""
    write_weights(folder, state, info)
    write_overrides(folder, info.base_model, json.loads(info.config_overrides))
    write_extras(folder, info, tokenizer, probe)


def write_weights(folder: Path, state: dict, info: ExportInfo) -> None:
    """Write adapter_model.safetensors and adapter_config.json."""
    save_file(unshared(state), folder / 'adapter_model.safetensors', metadata={'format': 'pt'})
    (folder / 'adapter_config.json').write_text(info.adapter_config + '\n', encoding='utf-8')


def unshared(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous tensors that share no memory, as safetensors demands; tied ones are written twice."""
    seen, tensors = set(), {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.contiguous().clone() if place in seen else tensor.contiguous()
        seen.add(place)
    return tensors


def write_extras(
    folder: Path, info: ExportInfo, tokenizer: PreTrainedTokenizerBase, probe: Probe | None = None
) -> None:
    """Write the tokenizer with the template of the training, generation_config.json with its stop tokens, the probe."""
    if probe is not None:
        probe.write(folder)
    write_tokenizer(folder, tokenizer, info.chat_template)
    text = json.dumps(json.loads(info.generation_config), indent=2)
    (folder / 'generation_config.json').write_text(text + '\n', encoding='utf-8')


def stored_dtype(job: Job, llm: torch.nn.Module) -> str:
    """Return the type in which the base's weights are stored, which merged and exported weights keep."""
    from transformers import AutoConfig

    from ..models.legacy.hub import legacy_folder
    from ..models.legacy.load import legacy_dtype

    folder = legacy_folder(job.values.base_model, revision=job.load_llm.keywords.get('revision'))
    if folder is not None:
        return str(legacy_dtype(folder, job.load_llm.keywords.get('variant'))).removeprefix('torch.')
    wanted = {k: v for k, v in job.load_llm.keywords.items() if k in ('trust_remote_code', 'revision')}
    config = AutoConfig.from_pretrained(job.values.base_model, **{'trust_remote_code': False, **wanted})
    return str(getattr(config, 'dtype', None) or llm.dtype).removeprefix('torch.')
