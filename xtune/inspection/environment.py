"""`xtune env`: versions, devices, and how to install missing packages."""

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Package -> its purpose.
REQUIRED = {
    'torch': 'tensors',
    'transformers': 'models and tokenizers',
    'peft': 'adapters',
    'accelerate': 'device placement while models are loaded',
    'mmengine-lite': 'the runner',
    'datasets': 'data sets on the Hub',
    'safetensors': 'weight files',
    'sentencepiece': 'tokenizers of Llama-2-like models',
    'einops': 'some models on the Hub',
    'bitsandbytes': 'QLoRA, --bits 4 and 8, paged optimizers',
    'openpyxl': '.xlsx data',
    'tensorboard': 'scalars in TensorBoard',
    'matplotlib': 'loss.png',
}
OPTIONAL = {
    'deepspeed': ('ZeRO over several GPUs', 'pip install "xtune[deepspeed]"'),
    'flash-attn': ("attn_implementation='flash_attention_2'", 'pip install flash-attn --no-build-isolation'),
    'flash-attn-3': (
        'FlashAttention 3 on Hopper GPUs such as the H100',
        'see the folder hopper of github.com/Dao-AILab/flash-attention for the build',
    ),
    'modelscope': ('models and data from ModelScope', 'pip install modelscope'),
}


def report() -> tuple[list[str], int]:
    """Return the lines to print and the number of missing required packages."""
    from .. import __version__

    lines = [f'xtune         {__version__}', f'python        {platform.python_version()} on {platform.platform()}']
    missing = 0
    for name, purpose in REQUIRED.items():
        version_ = installed(name)
        missing += version_ is None
        lines.append(f'{name:<14}{version_ or f"MISSING ({purpose}): pip install {name}"}')
    for name, (purpose, command) in OPTIONAL.items():
        lines.append(f'{name:<14}{installed(name) or f"not installed, optional ({purpose}): {command}"}')
    return lines + [*_device_lines(), *_place_lines()], missing


def installed(name: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device_lines() -> list[str]:
    if importlib.util.find_spec('torch') is None:
        return ['devices       unknown without torch']
    import torch

    lines = [f'CPU           {os.cpu_count()} cores, torch uses {torch.get_num_threads()}']
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'no bf16'
        memory = properties.total_memory / 2**30
        lines.append(f'GPU {index}         {properties.name}, {memory:.0f} GiB, CUDA {torch.version.cuda}, {bf16}')
    if not torch.cuda.is_available():
        cuda = torch.version.cuda
        reason = (
            f'torch is built for CUDA {cuda}, but finds no GPU: check the driver (nvidia-smi)'
            if cuda
            else 'torch is a CPU build; with an NVIDIA GPU, install the CUDA build from pytorch.org'
        )
        lines.append(f'GPU           none; {reason}')
    return lines


def _place_lines() -> list[str]:
    from ..config.presets import ROOT, presets
    from ..utils.cache import cache_root

    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return [
        f'presets       {len(presets())} in {ROOT}',
        f'cache         {cache_root()} (set XTUNE_CACHE to change it)',
        f'disk here     {free:,.0f} GiB free',
    ]
