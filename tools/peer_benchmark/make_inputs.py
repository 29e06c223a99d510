"""Write the random models and rows of a benchmark. A separate process releases the GPU memory when it ends.

benchmark_peers.py runs it on the machine of the benchmark. It prints nothing and writes machine.json:

    python -m peer_benchmark.make_inputs '{"folder": "...", "models": [...], "lengths": [...], "rows": 80}'
"""

import json
import sys
from pathlib import Path

from common.subprocesses import exit_with_error
from common.synthetic_inputs import gpu_problem, machine_info, write_random_model, write_random_rows

from .model_shapes import SHAPES


def main(settings: dict) -> None:
    """Write the models that are missing, all rows, and machine.json with the device and the version of torch."""
    import torch

    folder, models = Path(settings['folder']), settings['models']
    gpus = torch.cuda.device_count()
    problem = gpu_problem(gpus, 1, models == ['tiny'], '--models tiny')
    if problem:
        exit_with_error(problem)
    for model in models:
        complete = folder / model / 'complete'
        if not complete.exists():
            (folder / model).mkdir(parents=True, exist_ok=True)
            write_random_model(folder / model, SHAPES[model])
            complete.touch()
        for length in settings['lengths']:
            write_random_rows(folder / f'{model}_{length}.jsonl', settings['rows'], length, SHAPES[model]['vocab_size'])
    (folder / 'machine.json').write_text(json.dumps(machine_info()), encoding='utf-8')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
