"""`xtune convert pth_to_hf`: convert a checkpoint to a Hugging Face folder, and compare it with the trained model.

The checkpoint contains everything needed: the weights, the export info and the config of its run. The config on disk
may have changed since; it is read only to report differences.
"""

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ..compat.transformers_private import kept_in_float32
from ..engine import checkpoint_io
from ..errors import CheckpointError
from ..hf_format.config_overrides import note_overrides
from ..hf_format.probe_logits import Probe
from ..hf_format.transformers4_config import readable_by_v4
from ..hf_format.writer import ExportInfo, vocabulary_hash, write_adapter, write_extras
from ..methods.residual_init import as_plain_lora
from ..models.loading.tokenizer import load_tokenizer
from ..utils.quiet import quiet
from . import verify
from .output_folder import new_folder
from .processor_files import copy_processor_files
from .stored_config import differences, model_of_checkpoint
from .tensor_names import compare_tensor_names
from .weightless_model import meta_model

_DEFAULT_LOADER = AutoModelForCausalLM.from_pretrained


@dataclass(frozen=True)
class Exported:
    """The result of an export: adapter or full model, figures of the comparison (None without one), notes."""

    is_adapter: bool
    report: dict[str, Any] | None
    notes: list[str]


def pth_to_hf(
    config: Path, checkpoint: Path, target: Path, max_shard_size: str = '5GB', compare: bool = True
) -> Exported:
    """Write `checkpoint` as an adapter folder, or, after full fine-tuning, as a model folder.

    Weights of a full model are written in the type of the base's stored weights.

    Args:
        config: The config of the run.
        checkpoint: A .pth file, or a folder with a split checkpoint.
        target: A new folder.
        max_shard_size: Maximum size of a weight file, such as '2GB'.
        compare: Load the written folder and compare its logits with the probe logits of the training.

    Raises:
        XtuneError: The checkpoint, its base model or the target cannot be used, or the export differs from what was
            trained.
    """
    with new_folder(target) as folder:
        content = checkpoint_io.load(checkpoint)
        info = ExportInfo(**content['meta']['export'])
        spec, notes = model_of_checkpoint(content['meta'], config), differences(config, content['meta'])
        if spec.base_model != info.base_model:
            info = _with_base_model(info, spec.base_model)
        variant = spec.load_llm.keywords.get('variant')
        tokenizer = load_tokenizer(spec.base_model, spec.load_tokenizer, variant)
        _check_vocabulary(tokenizer, info, spec.base_model)
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
            revision = spec.load_llm.keywords.get('revision')
            notes.append(compare_tensor_names(folder, info.base_model, revision))
        report = None
        if probe is None:
            notes.append('the checkpoint has no probe logits, so the export was not compared with the trained model')
        elif compare and _uses_custom_code(spec.load_llm):
            notes.append('the base is loaded by custom code, which a conversion does not run: it was not compared')
        elif compare:
            base = info.base_model if info.adapter_config is not None else None
            report = verify.verify_folder(
                folder, base, probe, info.dtype, spec.quantization, **_load_arguments(spec.load_llm)
            )
            verify.write_report(folder, report)
    return Exported(info.adapter_config is not None, report, [note for note in notes if note])


def write_model(folder: Path, state: dict[str, torch.Tensor], info: ExportInfo, max_shard_size: str) -> None:
    """Write config.json and the weights as safetensors."""
    from transformers import AutoConfig

    with tempfile.TemporaryDirectory() as config_folder:
        (Path(config_folder) / 'config.json').write_text(info.model_config, encoding='utf-8')
        config = AutoConfig.from_pretrained(config_folder, trust_remote_code=False)
    dtype = getattr(torch, json.loads(info.model_config)['dtype'])
    model = meta_model(info.base_model, config, dtype)
    weights = {name: tensor.to(written_dtype(model, name, tensor, dtype)) for name, tensor in state.items()}
    with quiet():
        model.save_pretrained(folder, state_dict=weights, max_shard_size=max_shard_size)
    readable_by_v4(folder)


def written_dtype(model: torch.nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a tensor of a model with the stored type `dtype` is written.

    Integers keep their type, and transformers keeps some weights in float32, such as router biases.
    """
    if not tensor.is_floating_point():
        return tensor.dtype
    if dtype == torch.float32:
        return dtype
    in_float32 = kept_in_float32(model, dtype)
    return torch.float32 if any(re.search(rf'(^|\.){module}(\.|$)', name) for module in in_float32) else dtype


def _with_base_model(info: ExportInfo, base_model: str) -> ExportInfo:
    """Return `info` with the new location `base_model` of the base."""
    adapter = info.adapter_config
    if adapter is not None:
        values = json.loads(adapter) | dict(base_model_name_or_path=base_model)
        adapter = json.dumps(values, indent=2, sort_keys=True)
    return replace(info, base_model=base_model, adapter_config=adapter)


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, info: ExportInfo, base_model: str) -> None:
    if info.vocabulary not in (None, vocabulary_hash(tokenizer)):
        raise CheckpointError(
            f'the tokenizer of {base_model} differs from that of the training in tokens or ids. Restore the '
            'base model, or set base_model in the config to the original one'
        )


def _uses_custom_code(load_llm: Callable) -> bool:
    """Return whether section `llm` loads the model with remote code or with a custom loader."""
    return bool(load_llm.keywords.get('trust_remote_code')) or load_llm.func != _DEFAULT_LOADER


def _load_arguments(load_llm: Callable) -> dict[str, Any]:
    keywords = load_llm.keywords
    return {key: keywords[key] for key in ('variant', 'revision') if keywords.get(key)}
