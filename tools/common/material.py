"""What runs need and no hub gives: random models, a tokenizer of made-up words, rows of random token ids."""

import json
import random
import subprocess
import sys
from pathlib import Path

from .process import environment

EIGHT_B = dict(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
)
TINY = (
    EIGHT_B
    | dict(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    | dict(num_key_value_heads=2)
)
SPECIAL = ('<unk>', '<s>', '</s>', '<|im_start|>', '<|im_end|>')


def make_model(folder: Path, shape: dict) -> None:
    """Write a random model of `shape` in bf16 with a tokenizer of as many words as it has embeddings.

    `shape` is the arguments of its config in transformers; `model_type`, if there, names another kind than Llama.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    ends = dict(bos_token_id=1, eos_token_id=2)
    config = AutoConfig.for_model(**{'model_type': 'llama', **shape}, dtype='bfloat16', **ends)
    with torch.device('cuda' if torch.cuda.is_available() else 'cpu'):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    made_up = (f'w{i}' for i in range(len(SPECIAL), shape['vocab_size']))  # an id without a word is refused in rows
    words = Tokenizer(models.WordLevel({text: i for i, text in enumerate((*SPECIAL, *made_up))}, '<unk>'))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(list(SPECIAL))
    roles = dict(unk_token='<unk>', bos_token='<s>', eos_token='</s>', pad_token='</s>')
    PreTrainedTokenizerFast(tokenizer_object=words, **roles).save_pretrained(folder)


def make_rows(path: Path, count: int, length: int, vocabulary: int) -> None:
    """Write `count` rows of `length` random ids, each of which is trained."""
    rng, aside = random.Random(0), path.with_suffix('.part')
    with aside.open('w', encoding='utf-8') as file:
        for _ in range(count):
            ids = rng.choices(range(len(SPECIAL), vocabulary), k=length)
            file.write(json.dumps(dict(tokens=ids)) + '\n')
    aside.replace(path)


def refusal(gpus: int, devices: int, tiny: bool, option: str = '--model tiny') -> str:
    """Return why this machine, with so many GPUs, cannot run on `devices`; an empty text if it can.

    `option` is that of the command line which asks for a tiny model.
    """
    if not gpus and not tiny:
        return f'this machine has no GPU, and a model of that size needs one; add {option}'
    return f'--devices {devices}, but this machine has {gpus} GPUs' if 0 < gpus < devices else ''


def machine() -> dict[str, str]:
    """Return what computes here, and the release of torch."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'CPU'
    return dict(device=device, torch=torch.__version__)


def made_apart(module: str, wanted: dict, folder: Path) -> dict:
    """Let the program `module` make what is `wanted`, so that the GPU's memory is free again; return its machine.json.

    Ends this program if that one fails.
    """
    done = subprocess.run([sys.executable, '-m', module, json.dumps(wanted)], env=environment(folder))
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads((folder / 'machine.json').read_text(encoding='utf-8'))
