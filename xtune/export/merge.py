"""`xtune convert merge`: put an adapter into its base, and show that the result answers like the two did."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..errors import ModelError
from ..hf_format.config_overrides import refuse_overrides
from ..hf_format.probe_logits import Probe
from ..hf_format.transformers4_config import readable_by_v4
from ..hf_format.transformers4_tokenizer import write_tokenizer
from ..inference.load import base_config, load_for_inference, load_tokenizer_of, stored_dtype
from ..methods import tied_embeddings
from ..methods.quantized_checkpoints import refuse_merge
from ..models.legacy.hub import legacy_folder
from ..models.legacy.load import file_dtype
from ..models.legacy.save import open_for_original, write_original
from ..models.loading.folder_checks import check_adapter_folder, check_model_folder
from ..utils.quiet import quiet
from . import verify
from .output_folder import new_folder
from .processor_files import copy_processor_files
from .split import parse_size

# Mean KL divergence (nats per token) above which a merge is refused. Rounding to bf16 stays below 0.01.
MAX_KL = 0.1
PROMPTS = ('Who are you?', 'Explain in one sentence why the sky is blue.', '请用一句话介绍你自己。', 'def add(a, b):\n')


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
    """Write the merged model as safetensors with tokenizer, template and stop tokens; return the comparison.

    The merged model is compared with base and adapter before the merge, and, if the adapter's folder holds the probe
    logits of its training, with what was trained (`training` in the report).

    Args:
        base: Folder or hub name of the base model, not quantised.
        adapter: Folder of the adapter.
        target: A new folder.
        max_shard_size: Size of a weights file at most, such as '2GB'.
        device: 'cpu' or 'cuda'.
        dtype: Type of the written weights: 'auto' keeps the base's, or 'bfloat16', 'float16', 'float32'.
        layout: 'native' writes what transformers loads; 'original' the layout of 2023 that the base has.
        variant: Which of these layouts it is, where the base's config.json does not tell.
        against_training: Compare with the probe logits of the training.
        revision: Branch, tag or commit of a base on the hub; None: the one that the adapter names, else the newest.

    Raises:
        ModelError: The base or the adapter cannot be used, or the merged model answers differently.
    """
    if device == 'cuda' and not torch.cuda.is_available():
        raise ModelError('--device cuda: torch sees no GPU here; use --device cpu')
    check_model_folder(base, allow_remote_code=False)
    revision = _revision(base, check_adapter_folder(adapter), revision)
    if layout == 'original':
        refuse_overrides(adapter)
    if legacy_folder(base, revision=revision) is None:
        refuse_merge(base, base_config(base, revision))
    legacy = open_for_original(legacy_folder(base, revision=revision), base, variant) if layout == 'original' else None
    kind = _written_type(base, dtype, legacy, variant, revision)
    with new_folder(target) as folder:
        tokenizer = load_tokenizer_of(adapter, base, variant=variant, revision=revision)
        llm = load_for_inference(base, adapter, torch.device(device), kind, variant=variant, revision=revision)
        llm, report = _merged(llm, tokenizer, base, adapter)
        report |= dict(
            base=base, revision=revision, adapter=adapter, dtype=str(kind).removeprefix('torch.'), prompts=PROMPTS
        )
        if (Path(adapter) / 'generation_config.json').is_file():
            llm.generation_config = GenerationConfig.from_pretrained(adapter)
        if legacy is not None:
            stops = llm.generation_config.eos_token_id
            write_original(legacy, llm.state_dict(), folder, parse_size(max_shard_size), stops)
        else:
            with quiet():
                llm.save_pretrained(folder, max_shard_size=max_shard_size)
            readable_by_v4(folder)
            write_tokenizer(folder, tokenizer)
            copy_processor_files(base, folder, revision)
        del llm  # the comparison loads what was written
        report['training'] = _against_training(folder, adapter, report['dtype'], variant) if against_training else None
        text = json.dumps(report, indent=2, ensure_ascii=False)
        (folder / 'merge_report.json').write_text(text + '\n', encoding='utf-8')
    return report


def _revision(base: str, adapter: dict[str, Any], given: str | None) -> str | None:
    """Return the revision of `base`: the one `given`, or what `adapter` says of the model that it was trained on.

    Raises:
        ModelError: One is given, and `base` is a folder.
    """
    if Path(base).expanduser().is_dir():
        if given:
            raise ModelError(f'--revision {given} is for a model on the hub, and {base} is a folder: leave it out')
        return None
    named = adapter.get('revision') if adapter.get('base_model_name_or_path') == base else None
    if not given and named:
        print(f'note: the adapter was trained on revision {named} of {base}, which is taken')
    if given and named and given != named:
        print(f'warning: the adapter was trained on revision {named} of {base}, not on {given}', file=sys.stderr)
    return given or named


def _written_type(base: str, dtype: str, legacy: Any, variant: str | None, revision: str | None) -> torch.dtype:
    if dtype != 'auto':
        return getattr(torch, dtype)
    # Some config.json of 2023 name another type than their files have.
    return file_dtype(legacy.folder) if legacy is not None else stored_dtype(base, variant, revision)


def _merged(
    llm: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, base: str, adapter: str
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return the merged model, and how far it is from adapter and base before.

    Raises:
        ModelError: The two do not belong together, cannot be merged, or the merged model answers differently.
    """
    rows = llm.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f'the tokenizer of {adapter} has {len(tokenizer)} tokens, the base {base} only {rows}: '
            'it is not the base that the adapter was trained on'
        )
    _refuse_unmergeable(llm)
    before = probe_logits(llm, tokenizer)
    llm = llm.merge_and_unload()
    tied_embeddings.untie_config(llm)
    report = compare(before, probe_logits(llm, tokenizer))
    if not report['mean_kl'] <= MAX_KL:
        raise ModelError(
            f'the merged model does not answer like adapter and base: mean KL {report["mean_kl"]:.3f} nats per '
            f'token (allowed {MAX_KL}), largest logit difference {report["max_abs_diff"]:.3f}. Try --dtype float32.'
        )
    return llm, report


def _against_training(folder: Path, adapter: str, dtype: str, variant: str | None) -> dict[str, Any] | None:
    """Return how far the model in `folder` is from the logits that the training of `adapter` kept; None: it kept none.

    Raises:
        ModelError: It is too far.
    """
    probe = Probe.read(Path(adapter).expanduser())
    if probe is None:
        return None
    report = verify.verify_folder(folder, None, probe, dtype, **({'variant': variant} if variant else {}))
    probe.write(folder)
    verify.write_report(folder, report)
    return report


def _refuse_unmergeable(llm: torch.nn.Module) -> None:
    if not hasattr(llm, 'merge_and_unload'):
        raise ModelError('this kind of adapter has no weights to merge; use it with --adapter')
    inner = llm.get_base_model()
    quantizer = getattr(inner, 'hf_quantizer', None)
    if quantizer is not None and not getattr(quantizer.quantization_config, 'dequantize', False):
        raise ModelError(
            'the weights of the base are stored quantised, and nothing can be added to what is rounded so: merge into '
            'the base that it was made from, or use the adapter as it is: xtune chat BASE '
            '--adapter ADAPTER'
        )
    changed = tied_embeddings.unmergeable(llm)
    if changed:
        raise ModelError(
            'the base uses one matrix for input and output embeddings, and this adapter changes it for '
            f'{" and ".join(changed)} apart; merging would change both. Use it with --adapter.'
        )


@torch.inference_mode()
def probe_logits(llm: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """Return the float32 logits [S, V] of each of `PROMPTS`."""
    device = next(llm.parameters()).device
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors='pt')['input_ids'].to(device)
        rows.append(llm(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return rows


def compare(before: list[torch.Tensor], after: list[torch.Tensor]) -> dict[str, float]:
    """Return how far two sets of logits are apart: largest difference, mean KL (nats), share of equal first choices."""
    old, new = torch.cat(before), torch.cat(after)
    kl = F.kl_div(new.log_softmax(-1), old.log_softmax(-1), log_target=True, reduction='batchmean')
    return dict(
        max_abs_diff=(old - new).abs().max().item(),
        mean_kl=max(kl.item(), 0.0) if kl.isfinite() else float('inf'),
        same_first_choice=(old.argmax(-1) == new.argmax(-1)).float().mean().item(),
    )
