"""Write the models and rows of tools/benchmark_devices.py. A separate process releases the GPU memory when it ends.

benchmark_devices.py runs it on the machine of the benchmark. It prints nothing and writes machine.json: the device, the
version of torch, and the number of layers that fit on one device.

    python -m device_benchmark.make_inputs '{"folder": "...", ...}'
"""

import json
import sys
from pathlib import Path

from common.subprocesses import exit_with_error
from common.synthetic_inputs import LLAMA3_8B, TINY, gpu_problem, machine_info, write_random_model, write_random_rows

LLAMA3_70B = LLAMA3_8B | dict(
    hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8
)
SHAPES = {'8b': LLAMA3_8B, '70b': LLAMA3_70B, 'tiny': TINY}
# Bytes per trained parameter: weight, gradient and two moments of Adam in float32.
BYTES_PER_PARAMETER = 16
# Bytes of the loss per logit: bf16, float32, and the gradients of both.
BYTES_PER_LOGIT = 16


def count_parameters(shape: dict) -> tuple[int, int]:
    """Return the number of parameters of a layer of `shape`, and of embedding and lm_head together."""
    hidden, heads = shape['hidden_size'], shape['num_attention_heads']
    attention = 2 * hidden * hidden + 2 * hidden * hidden * shape['num_key_value_heads'] // heads
    return attention + 3 * hidden * shape['intermediate_size'], 2 * hidden * shape['vocab_size']


def layers_that_fit(shape: dict, memory: float, tokens: int) -> int:
    """Return the number of layers (at least one) that one device with `memory` bytes can fully fine-tune."""
    per_layer, embeddings = count_parameters(shape)
    left = 0.85 * memory - BYTES_PER_PARAMETER * embeddings - BYTES_PER_LOGIT * tokens * shape['vocab_size']
    return max(1, min(shape['num_hidden_layers'], int(left / (BYTES_PER_PARAMETER * per_layer))))


def main(settings: dict) -> None:
    """Write the models, the rows, and machine.json."""
    import torch

    folder = Path(settings['folder'])
    gpus = torch.cuda.device_count()
    problem = gpu_problem(gpus, settings['devices'], settings['model'] == 'tiny')
    if problem:
        exit_with_error(problem)
    shape = SHAPES[settings['model']]
    single_device_layers = settings['single_device_layers']
    if not single_device_layers:
        memory = torch.cuda.get_device_properties(0).total_memory if gpus else 2**34
        single_device_layers = layers_that_fit(shape, memory, settings['batch'] * settings['length'])
    for layers in set(settings['layers'] or (shape['num_hidden_layers'], single_device_layers)):
        write_random_model(folder / f'model_{layers}', shape | dict(num_hidden_layers=layers))
    write_random_rows(folder / 'rows.jsonl', settings['rows'], settings['length'], shape['vocab_size'])
    machine = machine_info() | dict(gpus=gpus, layers=shape['num_hidden_layers'])
    machine['single_device_layers'] = single_device_layers
    (folder / 'machine.json').write_text(json.dumps(machine), encoding='utf-8')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
