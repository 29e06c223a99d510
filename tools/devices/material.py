"""What the runs need and no hub gives: random models, a tokenizer of made-up words, rows of random token ids.

A program of its own, so that the GPU's memory is free again when it ends:

    python -m devices.material '{"folder": "...", ...}'
"""

import json
import random
import sys
from pathlib import Path

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
SEVENTY_B = EIGHT_B | dict(
    hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8
)
SHAPES = {'8b': EIGHT_B, '70b': SEVENTY_B, 'tiny': TINY}
# Weight, gradient and two moments of Adam in float32.
TRAINED = 16
# Bytes that the loss takes of each logit: bf16, float32, and the gradients of both.
LOGIT = 16
SPECIAL = ('<unk>', '<s>', '</s>', '<|im_start|>', '<|im_end|>')


def parameters(shape: dict) -> tuple[int, int]:
    """Return the parameters of a layer of `shape`, and those of embedding and head."""
    width, heads = shape['hidden_size'], shape['num_attention_heads']
    attention = 2 * width * width + 2 * width * width * shape['num_key_value_heads'] // heads
    return attention + 3 * width * shape['intermediate_size'], 2 * width * shape['vocab_size']


def depth_that_fits(shape: dict, memory: float, tokens: int) -> int:
    """Return how many layers of `shape` can be trained whole on one device of `memory` bytes, at least one."""
    layer, ends = parameters(shape)
    left = 0.85 * memory - TRAINED * ends - LOGIT * tokens * shape['vocab_size']
    return max(1, min(shape['num_hidden_layers'], int(left / (TRAINED * layer))))


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
    rng = random.Random(0)
    with path.open('w', encoding='utf-8') as file:
        for _ in range(count):
            ids = rng.choices(range(len(SPECIAL), vocabulary), k=length)
            file.write(json.dumps(dict(tokens=ids)) + '\n')


def refusal(gpus: int, devices: int, tiny: bool, option: str = '--model') -> str:
    """Return why this machine, with so many GPUs, cannot run on `devices`; an empty text if it can.

    `option` is that of the command line which names the model.
    """
    if not gpus and not tiny:
        return f'error: this machine has no GPU, and a model of that size needs one; add {option} tiny'
    return f'error: --devices {devices}, but this machine has {gpus} GPUs' if 0 < gpus < devices else ''


def main(wanted: dict) -> None:
    """Make what `wanted` asks for; write what the machine is and the depth that fits to `machine.json`."""
    import torch

    folder = Path(wanted['folder'])
    gpus = torch.cuda.device_count()
    refused = refusal(gpus, wanted['devices'], wanted['model'] == 'tiny')
    if refused:
        sys.exit(refused)
    folder.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[wanted['model']]
    one = wanted['one_layers']
    if not one:
        memory = torch.cuda.get_device_properties(0).total_memory if gpus else 2**34
        one = depth_that_fits(shape, memory, wanted['batch'] * wanted['length'])
    for layers in set(wanted['layers'] or (shape['num_hidden_layers'], one)):
        make_model(folder / f'model_{layers}', shape | dict(num_hidden_layers=layers))
    make_rows(folder / 'rows.jsonl', wanted['rows'], wanted['length'], shape['vocab_size'])
    name = torch.cuda.get_device_name(0) if gpus else 'CPU'
    machine = dict(device=name, gpus=gpus, torch=torch.__version__, layers=shape['num_hidden_layers'], one_layers=one)
    (folder / 'machine.json').write_text(json.dumps(machine), encoding='utf-8')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
