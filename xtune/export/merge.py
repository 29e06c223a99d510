"""`xtune convert merge`: merge an adapter into its base, and verify that the merged model computes the same."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ModelError
from ..hf_format.config_overrides import refuse_overrides
from ..hf_format.probe_logits import Probe
from ..hf_format.transformers4_config import readable_by_v4
from ..hf_format.transformers4_tokenizer import write_tokenizer
from ..inference.base_config import base_config, stored_dtype
from ..inference.load import load_for_inference
from ..inference.tokenizer import load_tokenizer_of
from ..methods.quantized_checkpoints import refuse_merge
from ..models.legacy.checkpoint import LegacyCheckpoint
from ..models.legacy.hub import legacy_folder
from ..models.legacy.load import file_dtype
from ..models.loading.folder_checks import check_adapter_folder, check_model_folder
from ..utils.quiet import quiet
from . import verify
from .legacy_writer import open_for_original, write_original
from .merge_weights import PROMPTS, merge_weights
from .output_folder import new_folder
from .processor_files import copy_processor_files
from .shards import parse_size


def merge(
    base: str,
    adapter: str,
    target: Path,
    max_shard_size: str = '5GB',
    device: str = 'cpu',
    dtype: str = 'auto',
    layout: str = 'native',
    variant: str | None = None,
    against_training: bool = True,
    revision: str | None = None,
) -> dict:
    """Write the merged model as safetensors with tokenizer, chat template and stop tokens; return the comparison.

    The merged model is compared with base and adapter before the merge. If the adapter's folder contains the probe
    logits of its training, it is also compared with them (`training` in the report).

    Args:
        base: Folder or hub name of the base model, not quantized.
        adapter: Folder of the adapter.
        target: A new folder.
        max_shard_size: Maximum size of a weight file, such as '2GB'.
        device: 'cpu' or 'cuda'.
        dtype: Type of the written weights: 'auto' keeps the base's, or 'bfloat16', 'float16', 'float32'.
        layout: 'native' writes the layout of transformers; 'original' that of a base which is a 2023 remote-code
            checkpoint.
        variant: Variant of such a base, if its config.json is ambiguous.
        against_training: Compare with the probe logits of the training.
        revision: Branch, tag or commit of a base on the hub; None uses that of the adapter's config, else the newest.

    Raises:
        ModelError: The base or the adapter cannot be used, or the merged model computes something else.
    """
    if device == 'cuda' and not torch.cuda.is_available():
        raise ModelError('--device cuda: torch sees no GPU here; use --device cpu')
    check_model_folder(base, allow_remote_code=False)
    revision = _base_revision(base, check_adapter_folder(adapter), revision)
    if layout == 'original':
        refuse_overrides(adapter)
    folder_of_base = legacy_folder(base, revision=revision)
    if folder_of_base is None:
        refuse_merge(base, base_config(base, revision))
    original = open_for_original(folder_of_base, base, variant) if layout == 'original' else None
    written_dtype = _written_dtype(base, dtype, original, variant, revision)
    with new_folder(target) as folder:
        tokenizer = load_tokenizer_of(adapter, base, variant=variant, revision=revision)
        llm = load_for_inference(base, adapter, torch.device(device), written_dtype, variant=variant, revision=revision)
        llm, report = merge_weights(llm, tokenizer, base, adapter)
        dtype_name = str(written_dtype).removeprefix('torch.')
        report |= dict(base=base, revision=revision, adapter=adapter, dtype=dtype_name, prompts=PROMPTS)
        if (Path(adapter) / 'generation_config.json').is_file():
            llm.generation_config = GenerationConfig.from_pretrained(adapter)
        if original is not None:
            stop_ids = llm.generation_config.eos_token_id
            write_original(original, llm.state_dict(), folder, parse_size(max_shard_size), stop_ids)
        else:
            _write_native(llm, tokenizer, folder, max_shard_size)
            copy_processor_files(base, folder, revision)
        del llm  # the comparison loads the written files
        report['training'] = _compare_with_training(folder, adapter, dtype_name, variant) if against_training else None
        text = json.dumps(report, indent=2, ensure_ascii=False)
        (folder / 'merge_report.json').write_text(text + '\n', encoding='utf-8')
    return report


def _base_revision(base: str, adapter_config: dict[str, Any], requested: str | None) -> str | None:
    """Return the revision of `base`: the `requested` one, or that of its training according to `adapter_config`.

    Raises:
        ModelError: A revision is requested, and `base` is a folder.
    """
    if Path(base).expanduser().is_dir():
        if requested:
            raise ModelError(f'--revision {requested} is for a model on the hub, but {base} is a folder: leave it out')
        return None
    trained_on = adapter_config.get('revision') if adapter_config.get('base_model_name_or_path') == base else None
    if not requested and trained_on:
        print(f'note: using revision {trained_on} of {base}, on which the adapter was trained')
    if requested and trained_on and requested != trained_on:
        print(
            f'warning: the adapter was trained on revision {trained_on} of {base}, not on {requested}', file=sys.stderr
        )
    return requested or trained_on


def _written_dtype(
    base: str, dtype: str, original: LegacyCheckpoint | None, variant: str | None, revision: str | None
) -> torch.dtype:
    if dtype != 'auto':
        return getattr(torch, dtype)
    # The config.json of some 2023 remote-code checkpoints names another type than that of their files.
    return file_dtype(original.folder) if original is not None else stored_dtype(base, variant, revision)


def _write_native(llm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, max_shard_size: str) -> None:
    with quiet():
        llm.save_pretrained(folder, max_shard_size=max_shard_size)
    readable_by_v4(folder)
    write_tokenizer(folder, tokenizer)


def _compare_with_training(folder: Path, adapter: str, dtype: str, variant: str | None) -> dict[str, Any] | None:
    """Return the difference of the model in `folder` from the adapter's probe logits; None if it has none.

    Raises:
        ModelError: The difference is too large.
    """
    probe = Probe.read(Path(adapter).expanduser())
    if probe is None:
        return None
    report = verify.verify_folder(folder, None, probe, dtype, **({'variant': variant} if variant else {}))
    probe.write(folder)
    verify.write_report(folder, report)
    return report
