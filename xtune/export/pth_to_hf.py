"""`xtune convert pth_to_hf`: a checkpoint -> a Hugging Face folder, compared with what was trained.

The checkpoint says all that is needed: its weights, the export info and the config of its run. The config on disk may
have changed since; it is read only to name what differs.
"""

import json
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ..config.wire import Job
from ..data.build import load_tokenizer
from ..engine import checkpoint_io
from ..errors import CheckpointError
from ..hf_format.config_overrides import note_overrides
from ..hf_format.probe_logits import Probe
from ..hf_format.transformers4_config import readable_by_v4
from ..hf_format.writer import ExportInfo, vocabulary_hash, write_adapter, write_extras
from ..methods.residual_init import as_plain_lora
from ..utils.quiet import quiet
from . import tensor_names, verify
from .output_folder import new_folder
from .processor_files import copy_processor_files
from .stored_config import differences, stored_job
from .weightless_model import meta_model

_LOADS = AutoModelForCausalLM.from_pretrained


@dataclass(frozen=True)
class Exported:
    """What was written: an adapter or a whole model, the figures of the comparison (None: none), and remarks."""

    is_adapter: bool
    report: dict[str, Any] | None
    notes: list[str]


def pth_to_hf(
    config: Path, checkpoint: Path, target: Path, max_shard_size: str = '5GB', compare: bool = True
) -> Exported:
    """Write `checkpoint` as an adapter folder, or, after full fine-tuning, as a model folder.

    Weights of a whole model are written in the type in which the base's are stored.

    Args:
        config: The config that is said to have written the checkpoint.
        checkpoint: A .pth file, or a folder of parts.
        target: A new folder.
        max_shard_size: Size of a weights file at most, such as '2GB'.
        compare: Load what was written and compare its logits with those that training kept.

    Raises:
        XtuneError: The checkpoint, its base model or the target cannot be used, or the export differs from what was
            trained.
    """
    with new_folder(target) as folder:
        content = checkpoint_io.load(checkpoint)
        info = ExportInfo(**content['meta']['export'])
        job, notes = stored_job(content['meta'], config), differences(config, content['meta'])
        if job.values.base_model != info.base_model:
            info = _moved(info, job.values.base_model)
        tokenizer = load_tokenizer(job)
        _check_vocabulary(tokenizer, info, job)
        probe = Probe.from_dict(content['probe']) if content.get('probe') else None
        state = content['state_dict']
        if info.adapter_config is not None:
            state, info = as_plain_lora(state, content.get('initial_adapter'), info)
            write_adapter(folder, state, info, tokenizer, probe)
            note_overrides(json.loads(info.config_overrides), info.base_model)
        else:
            write_model(folder, state, info, max_shard_size)
            write_extras(folder, info, tokenizer, probe)
            copy_processor_files(info.base_model, folder)
            notes.append(tensor_names.compared(folder, info.base_model, job.load_llm.keywords.get('revision')))
        report = None
        if probe is None:
            notes.append('the checkpoint holds no probe logits, so the export was not compared with what was trained')
        elif compare and _has_own_code(job):
            notes.append('the base is loaded by code of its own, which a conversion does not run: it was not compared')
        elif compare:
            base = info.base_model if info.adapter_config is not None else None
            report = verify.verify_folder(folder, base, probe, info.dtype, job.quantization, **_which(job))
            verify.write_report(folder, report)
    return Exported(info.adapter_config is not None, report, [note for note in notes if note])


def write_model(folder: Path, state: dict[str, torch.Tensor], info: ExportInfo, max_shard_size: str) -> None:
    """Write config.json and the weights as safetensors."""
    from transformers import AutoConfig

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / 'config.json').write_text(info.model_config, encoding='utf-8')
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    dtype = getattr(torch, json.loads(info.model_config)['dtype'])
    model = meta_model(info.base_model, config, dtype)
    weights = {name: tensor.to(stored_type(model, name, tensor, dtype)) for name, tensor in state.items()}
    with quiet():
        model.save_pretrained(folder, state_dict=weights, max_shard_size=max_shard_size)
    readable_by_v4(folder)


def stored_type(model: torch.nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a tensor of a model that is stored in `dtype` is written.

    Integers keep their type, and transformers keeps some weights in float32, such as the biases of routers.
    """
    if not tensor.is_floating_point():
        return tensor.dtype
    if dtype == torch.float32:
        return dtype
    kept = set(getattr(model, '_keep_in_fp32_modules_strict', None) or ())
    kept |= set(getattr(model, '_keep_in_fp32_modules', None) or ()) if dtype == torch.float16 else set()
    return torch.float32 if any(re.search(rf'(^|\.){part}(\.|$)', name) for part in kept) else dtype


def _moved(info: ExportInfo, base_model: str) -> ExportInfo:
    """Return `info` of a base model that now lies at `base_model`."""
    adapter = info.adapter_config
    if adapter is not None:
        values = json.loads(adapter) | dict(base_model_name_or_path=base_model)
        adapter = json.dumps(values, indent=2, sort_keys=True)
    return replace(info, base_model=base_model, adapter_config=adapter)


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, info: ExportInfo, job: Job) -> None:
    if info.vocabulary not in (None, vocabulary_hash(tokenizer)):
        raise CheckpointError(
            f'the tokenizer of {job.values.base_model} is not the one the checkpoint was trained with: it has other '
            'tokens or ids. Restore the base model as it was, or name it in the config as base_model'
        )


def _has_own_code(job: Job) -> bool:
    """Tell whether `llm` names code besides transformers' that loads the model."""
    return bool(job.load_llm.keywords.get('trust_remote_code')) or job.load_llm.func != _LOADS


def _which(job: Job) -> dict[str, Any]:
    keywords = job.load_llm.keywords
    return {key: keywords[key] for key in ('variant', 'revision') if keywords.get(key)}
