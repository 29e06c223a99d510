"""Makes the models and rows of tools/benchmark_devices.py, and says how deep a model fits one device.

A program of its own, so that the GPU's memory is free again when it ends:

    python -m devices.material '{"folder": "...", ...}'
"""

import json
import sys
from pathlib import Path

from common.material import EIGHT_B, TINY, machine, make_model, make_rows, refusal
from common.process import fail

SEVENTY_B = EIGHT_B | dict(
    hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8
)
SHAPES = {'8b': EIGHT_B, '70b': SEVENTY_B, 'tiny': TINY}
# Weight, gradient and two moments of Adam in float32.
TRAINED = 16
# Bytes that the loss takes of each logit: bf16, float32, and the gradients of both.
LOGIT = 16


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


def main(wanted: dict) -> None:
    """Make what `wanted` asks for; write what the machine is and the depth that fits to `machine.json`."""
    import torch

    folder = Path(wanted['folder'])
    gpus = torch.cuda.device_count()
    refused = refusal(gpus, wanted['devices'], wanted['model'] == 'tiny')
    if refused:
        fail(refused)
    shape = SHAPES[wanted['model']]
    one = wanted['one_layers']
    if not one:
        memory = torch.cuda.get_device_properties(0).total_memory if gpus else 2**34
        one = depth_that_fits(shape, memory, wanted['batch'] * wanted['length'])
    for layers in set(wanted['layers'] or (shape['num_hidden_layers'], one)):
        make_model(folder / f'model_{layers}', shape | dict(num_hidden_layers=layers))
    make_rows(folder / 'rows.jsonl', wanted['rows'], wanted['length'], shape['vocab_size'])
    found = machine() | dict(gpus=gpus, layers=shape['num_hidden_layers'], one_layers=one)
    (folder / 'machine.json').write_text(json.dumps(found), encoding='utf-8')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
