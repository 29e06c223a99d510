"""Compare an export with the probe logits of its training, and write the figures next to the weights."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from ..hf_format.probe_logits import FILE, Probe, logits_of
from ..inference.base_config import base_config
from ..inference.load import load_for_inference
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_checks import stored_quantization

REPORT = 'verification.json'
# (mean KL in nats per position, relative error of log probabilities) above which an export is refused, by the least
# precise of: the compute type in training, the base's storage type in training, the type of the written weights.
# Measured on SmolLM2-135M: docs/en/models.md.
LIMITS = {
    'float32': (1e-3, 0.01),
    'bfloat16': (0.02, 0.1),
    'float16': (0.02, 0.1),
    'int8': (0.1, 0.25),
    'float8': (0.1, 0.25),
    'quantized': (0.5, 0.6),  # NF4 and other methods: trained on the quantized base, compared on the original one
}
_BITSANDBYTES = ('nf4', 'fp4', 'int8')  # an adapter is compared on a base that is quantized as in training
CPU = torch.device('cpu')


def limits(probe: Probe, dtype: str, same_base: bool = False) -> tuple[float, float]:
    """Return the largest accepted mean KL and relative error of an export of `dtype`, such as 'bfloat16'.

    `same_base`: whether the base is quantized as it was in training.
    """
    base = None if same_base else probe.about.base
    storage = base if base in LIMITS or base is None else 'quantized'
    # Kernels of quantized layers sum in another order, hence at least bfloat16.
    return max(LIMITS[name] for name in (probe.about.precision, dtype, storage, 'bfloat16' * same_base) if name)


def verify(
    llm: torch.nn.Module,
    probe: Probe,
    name: str,
    dtype: str,
    device: torch.device = CPU,
    same_base: bool = False,
) -> dict:
    """Return the figures of a comparison of `llm` with the logits of its training.

    Args:
        llm: The exported model, in evaluation mode.
        probe: The probe logits of the training.
        name: Name of the export in an error.
        dtype: The type of the exported weights, such as 'bfloat16'.
        device: Device of `llm`.
        same_base: Whether its base is quantized as it was in training.

    Raises:
        ModelError: They differ by more than rounding explains.
    """
    max_kl, max_error = limits(probe, dtype, same_base)
    figures = probe.compare(logits_of(llm, probe.ids, device))
    about = probe.about
    report = dict(
        **figures,
        max_mean_kl=max_kl,
        max_relative_error=max_error,
        positions=len(probe.log_probs_TK),
        training_step=about.step,
        training_precision=about.precision,
        training_base=about.base,
        dtype=dtype,
    )
    if not (figures['mean_kl'] <= max_kl and figures['relative_error'] <= max_error):
        raise ModelError(
            f'{name} differs from the trained model: compared with the logits of training step {about.step} '
            f'({about.precision}{_base_storage(probe)}), the mean KL is {figures["mean_kl"]:.2g} nats per token (at '
            f'most {max_kl:g}), the relative error of log probabilities {figures["relative_error"]:.2g} (at most '
            f'{max_error:g}). Is the base model still the one it was trained on? --no-verify writes it anyway'
        )
    return report


def verify_folder(
    folder: Path,
    base: str | None,
    probe: Probe,
    dtype: str,
    quantization: Callable[..., Any] | None = None,
    **arguments: str,
) -> dict[str, Any]:
    """Load a model folder, or an adapter folder on `base`, on the CPU, and return the figures of `verify`.

    Args:
        folder: The exported folder.
        base: Folder or hub name of the base of an adapter; None if `folder` is a model.
        probe: The probe logits of the training.
        dtype: The type of the exported weights, or of the base's, such as 'bfloat16'.
        quantization: Builds the quantization config of the run, for an adapter on a base that the run quantized.
        arguments: `variant` or `revision` for `load_for_inference`.

    Raises:
        ModelError: The export cannot be loaded, or differs from the trained model.
    """
    # An adapter of a float32 run is compared in float32, the type in which that run loaded the base.
    compute = 'float32' if base and probe.about.precision == 'float32' else dtype
    if probe.about.base == 'int8':
        compute = 'bfloat16'  # int8 kernels take no float32
    try:
        quantized = _quantization_arguments(base, probe, compute, quantization) if base else None
        adapter = str(folder) if base else None
        arguments |= quantized or {}
        llm = load_for_inference(base or str(folder), adapter, CPU, getattr(torch, compute), **arguments)
    except ModelError as error:
        raise ModelError(f'the export cannot be verified: {error}; --no-verify writes it unverified') from error
    name = f'the adapter on {base}' if base else 'the exported model'
    return verify(llm, probe, name, compute, same_base=quantized is not None)


def _quantization_arguments(
    base: str, probe: Probe, compute: str, quantization: Callable[..., Any] | None
) -> dict[str, Any] | None:
    """Return the arguments that load the base quantized as in training; None if it was not, or cannot be here."""
    if probe.about.base is None:
        return None
    if legacy_folder(base) is None and stored_quantization(base_config(base)) is not None:
        return {}  # the files are quantized
    if probe.about.base not in _BITSANDBYTES or quantization is None or find_spec('bitsandbytes') is None:
        return None
    keywords = getattr(quantization, 'keywords', {})
    types = dict(bnb_4bit_compute_dtype=compute)
    return dict(quantization=quantization(**{key: value for key, value in types.items() if key not in keywords}))


def write_report(folder: Path, report: dict) -> None:
    """Write the figures of a comparison into `folder`."""
    (folder / REPORT).write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')


def summary_line(report: dict | None) -> str:
    """Return the text that a command prints about a comparison; `report` is None without one."""
    if report is None:
        return 'not compared with the trained model'
    return (
        f'compared with the logits of training step {report["training_step"]}: mean KL {report["mean_kl"]:.1e} nats '
        f'per token (at most {report["max_mean_kl"]:g}), relative error {report["relative_error"]:.1e} (at most '
        f'{report["max_relative_error"]:g}); figures in {REPORT}\n'
        f'note: {FILE} holds tokens of your samples; remove it before you publish the folder, if they are private'
    )


def _base_storage(probe: Probe) -> str:
    return f', base in {probe.about.base}' if probe.about.base else ''
