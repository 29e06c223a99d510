"""Makes the random models and rows of a benchmark; a program of its own, so that the GPU's memory is free again.

python -m peers.material '{"folder": "...", "models": [...], "lengths": [...], "rows": 80}'
"""

import json
import sys
from pathlib import Path

from common.material import machine, make_model, make_rows, refusal
from common.process import fail

from .shapes import SHAPES


def main(wanted: dict) -> None:
    """Make what `wanted` asks for and is not there yet; write what the machine is to `machine.json`."""
    import torch

    folder, models = Path(wanted['folder']), wanted['models']
    gpus = torch.cuda.device_count()
    refused = refusal(gpus, 1, models == ['tiny'], '--models tiny')
    if refused:
        fail(refused)
    for model in models:
        whole = folder / model / 'whole'
        if not whole.exists():
            (folder / model).mkdir(parents=True, exist_ok=True)
            make_model(folder / model, SHAPES[model])
            whole.touch()
        for length in wanted['lengths']:
            make_rows(folder / f'{model}_{length}.jsonl', wanted['rows'], length, SHAPES[model]['vocab_size'])
    (folder / 'machine.json').write_text(json.dumps(machine()), encoding='utf-8')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
