"""Compare an export with the probe logits that its training kept, and write the figures beside the weights."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from ..hf_format.probe_logits import FILE, Probe, logits_of
from ..inference.load import base_config, load_for_inference
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_checks import stored_quantization

REPORT = 'verification.json'
# (mean KL in nats per position, relative error of log probabilities) above which an export is refused, by the least
# precise of: the compute type in training, the base's form in training, the type of the written weights. Measured on
# SmolLM2-135M: docs/en/models.md.
LIMITS = {
    'float32': (1e-3, 0.01),
    'bfloat16': (0.02, 0.1),
    'float16': (0.02, 0.1),
    'int8': (0.1, 0.25),
    'float8': (0.1, 0.25),
    'quantised': (0.5, 0.6),  # nf4 and other methods: training saw the rounded base, and the export has the original
}
_BITSANDBYTES = ('nf4', 'fp4', 'int8')  # an adapter is compared on a base that is quantised as in training
CPU = torch.device('cpu')


def limits(probe: Probe, dtype: str, same_base: bool = False) -> tuple[float, float]:
    """Return the largest mean KL and relative error of an export of `dtype`, such as 'bfloat16'.

    `same_base`: the base is quantised as it was in training.
    """
    base = None if same_base else probe.about.base
    form = base if base in LIMITS or base is None else 'quantised'
    # Kernels of quantised layers compute in other orders.
    return max(LIMITS[kind] for kind in (probe.about.precision, dtype, form, 'bfloat16' * same_base) if kind)


def verify(
    llm: torch.nn.Module,
    probe: Probe,
    what: str,
    dtype: str,
    device: torch.device = CPU,
    same_base: bool = False,
) -> dict:
    """Return the figures of a comparison of `llm` with the logits of its training.

    Args:
        llm: The exported model, in evaluation mode.
        probe: What training kept.
        what: Names the export in an error.
        dtype: The type of the exported weights, such as 'bfloat16'.
        device: Where `llm` is.
        same_base: Its base is quantised as it was in training.

    Raises:
        ModelError: They differ by more than rounding explains.
    """
    kl, error = limits(probe, dtype, same_base)
    found = probe.compare(logits_of(llm, probe.ids, device))
    about = probe.about
    report = dict(
        **found,
        max_mean_kl=kl,
        max_relative_error=error,
        positions=len(probe.log_probs_TK),
        training_step=about.step,
        training_precision=about.precision,
        training_base=about.base,
        dtype=dtype,
    )
    if not (found['mean_kl'] <= kl and found['relative_error'] <= error):
        raise ModelError(
            f'{what} does not compute what was trained: compared with the logits of training step {about.step} '
            f'({about.precision}{_base(probe)}), the mean KL is {found["mean_kl"]:.2g} nats per token (at most '
            f'{kl:g}), the relative error of log probabilities {found["relative_error"]:.2g} (at most {error:g}). '
            'Is the base model still the one it was trained on? --no-verify writes it all the same'
        )
    return report


def verify_folder(
    folder: Path,
    base: str | None,
    probe: Probe,
    dtype: str,
    quantization: Callable[..., Any] | None = None,
    **which: str,
) -> dict[str, Any]:
    """Load the model folder, or the adapter folder on `base`, on the CPU, and return what `verify` returns.

    Args:
        folder: What was exported.
        base: Folder or hub name of the base of an adapter; None: `folder` is a model.
        probe: What training kept.
        dtype: The type of the exported weights, or of the base's, such as 'bfloat16'.
        quantization: Makes the quantisation config of the run, for an adapter on a base that it quantised.
        which: `variant` or `revision` of what is loaded; see `load_for_inference`.

    Raises:
        ModelError: It cannot be loaded, or differs.
    """
    # Adapters of a float32 run are compared in float32, on the base as that run loaded it.
    compute = 'float32' if base and probe.about.precision == 'float32' else dtype
    if probe.about.base == 'int8':
        compute = 'bfloat16'  # int8 kernels take no float32
    try:
        how = _as_in_training(base, probe, compute, quantization) if base else None
        adapter = str(folder) if base else None
        more = dict(which, **how) if how else which
        llm = load_for_inference(base or str(folder), adapter, CPU, getattr(torch, compute), **more)
    except ModelError as error:
        raise ModelError(f'the export cannot be verified: {error}; --no-verify writes it unverified') from error
    what = f'the adapter on {base}' if base else 'the exported model'
    return verify(llm, probe, what, compute, same_base=how is not None)


def _as_in_training(
    base: str, probe: Probe, compute: str, quantization: Callable[..., Any] | None
) -> dict[str, Any] | None:
    """Return the arguments that load a quantised base as it was in training; None: it was not, or cannot be here."""
    if probe.about.base is None:
        return None
    if legacy_folder(base) is None and stored_quantization(base_config(base)) is not None:
        return {}  # its files are quantised
    if probe.about.base not in _BITSANDBYTES or quantization is None or find_spec('bitsandbytes') is None:
        return None
    given = getattr(quantization, 'keywords', {})
    types = dict(bnb_4bit_compute_dtype=compute)
    return dict(quantization=quantization(**{key: value for key, value in types.items() if key not in given}))


def write_report(folder: Path, report: dict) -> None:
    """Write the figures into `folder`."""
    (folder / REPORT).write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')


def line(report: dict | None) -> str:
    """Return what a command prints of a comparison; None: there was none."""
    if report is None:
        return 'not compared with the trained model'
    return (
        f'compared with the logits of training step {report["training_step"]}: mean KL {report["mean_kl"]:.1e} nats '
        f'per token (at most {report["max_mean_kl"]:g}), relative error {report["relative_error"]:.1e} (at most '
        f'{report["max_relative_error"]:g}); figures in {REPORT}\n'
        f'note: {FILE} holds tokens of your samples; remove it before you publish the folder, if they are private'
    )


def _base(probe: Probe) -> str:
    return f', base in {probe.about.base}' if probe.about.base else ''
