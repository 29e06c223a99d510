"""Inputs for runs without downloads: random models, a tokenizer of invented words, sequences of random token ids."""

import json
import random
import subprocess
import sys
from pathlib import Path

from .subprocesses import subprocess_env

LLAMA3_8B = dict(
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
    LLAMA3_8B
    | dict(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    | dict(num_key_value_heads=2)
)
SPECIAL_TOKENS = ('<unk>', '<s>', '</s>', '<|im_start|>', '<|im_end|>')


def write_random_model(folder: Path, shape: dict) -> None:
    """Write a random bf16 model, and a tokenizer with one word per row of its embeddings.

    `shape` contains arguments of the config class in transformers. The default `model_type` is Llama.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    token_ids = dict(bos_token_id=1, eos_token_id=2)
    config = AutoConfig.for_model(**{'model_type': 'llama', **shape}, dtype='bfloat16', **token_ids)
    with torch.device('cuda' if torch.cuda.is_available() else 'cpu'):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    words = (f'w{i}' for i in range(len(SPECIAL_TOKENS), shape['vocab_size']))  # rows with unknown ids are refused
    vocab = {text: i for i, text in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocab, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    roles = dict(unk_token='<unk>', bos_token='<s>', eos_token='</s>', pad_token='</s>')
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)


def write_random_rows(path: Path, count: int, seq_len: int, vocab_size: int) -> None:
    """Write `count` rows of `seq_len` random token ids, all trained."""
    rng, unfinished = random.Random(0), path.with_suffix('.part')
    with unfinished.open('w', encoding='utf-8') as file:
        for _ in range(count):
            ids = rng.choices(range(len(SPECIAL_TOKENS), vocab_size), k=seq_len)
            file.write(json.dumps(dict(tokens=ids)) + '\n')
    unfinished.replace(path)


def gpu_problem(gpus: int, devices: int, tiny: bool, option: str = '--model tiny') -> str:
    """Return why a machine with `gpus` GPUs cannot run on `devices`; an empty text if it can.

    `option` is the command line option that selects a tiny model.
    """
    if not gpus and not tiny:
        return f'a model of this size needs a GPU, and this machine has none; add {option}'
    return f'--devices {devices}, but this machine has {gpus} GPUs' if 0 < gpus < devices else ''


def machine_info() -> dict[str, str]:
    """Return the name of the device and the version of torch."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'CPU'
    return dict(device=device, torch=torch.__version__)


def make_in_subprocess(module: str, settings: dict, folder: Path) -> dict:
    """Run `module` with `settings` as JSON and return the machine.json that it writes.

    A separate process releases all GPU memory when it ends. Exits if it fails.
    """
    done = subprocess.run([sys.executable, '-m', module, json.dumps(settings)], env=subprocess_env(folder))
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads((folder / 'machine.json').read_text(encoding='utf-8'))
