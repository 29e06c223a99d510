#!/usr/bin/env python
"""Write the table of docs/en/plan.md and docs/zh/plan.md: peak memory of Qwen2.5 by method, batch and sequence length.

    python tools/plan_table.py            write both pages (takes some minutes)
    python tools/plan_table.py --print    only print the table

Runs on a CPU. Prints each row as soon as it is computed. Peaks are counted like by `xtune plan` without a GPU, for the
model shapes in plan_table_models.json. Values that fit on 8 GB are in bold.
"""

import argparse
import json
import tempfile
from pathlib import Path

from xtune.utils.atomic import write_text

TOOLS = Path(__file__).resolve().parent
PAGES = [TOOLS.parent / 'docs' / language / 'plan.md' for language in ('en', 'zh')]
BEGIN, END = '<!-- table: tools/plan_table.py -->', '<!-- end of table -->'
GPU_GB = 8
METHODS, BATCHES, LENGTHS = ('lora', 'qlora'), (1, 4, 8, 32), (64, 256, 1024)
MODEL = dict(model_type='qwen2', architectures=['Qwen2ForCausalLM'], max_position_embeddings=32768)


def peak(folder: Path, method: str, batch: int, length: int) -> int:
    """Return the peak memory of a run of the model in `folder`, in bytes, including the CUDA context."""
    from xtune.config.load import load
    from xtune.config.presets import find
    from xtune.config.wire import wire
    from xtune.planning.estimator import MemoryEstimator
    from xtune.planning.units import CONTEXT

    options = {
        'base_model': str(folder),
        'max_length': length,
        'pack': False,
        'activation_checkpointing': 'all',
        'speed.compile': False,
        'schedule.batch_size': batch,
        'lora.r': 16,
    }
    step = wire(load(find(f'smollm2_135m_{method}_alpaca_e1'), options, check_types=True)).step
    return MemoryEstimator(step).estimate(step).peak + CONTEXT


def cell(num_bytes: int) -> str:
    """Return a number of bytes in GiB, in bold if it fits on the GPU."""
    from xtune.planning.units import GIB, usable_bytes

    text = f'{num_bytes / GIB:.1f}'
    return f'**{text}**' if num_bytes <= usable_bytes(GPU_GB) else text


def table() -> str:
    """Return the table in Markdown."""
    shapes = json.loads((TOOLS / 'plan_table_models.json').read_text('utf-8'))
    lines = ['| model, method | micro-batch | ' + ' | '.join(f'{length} tokens' for length in LENGTHS) + ' |']
    lines.append('|---|---|' + '---|' * len(LENGTHS))
    with tempfile.TemporaryDirectory() as temporary:
        for size, shape in shapes.items():
            folder = Path(temporary) / size
            folder.mkdir()
            (folder / 'config.json').write_text(json.dumps(MODEL | shape), encoding='utf-8')
            for method in METHODS:
                for batch in BATCHES:
                    cells = [cell(peak(folder, method, batch, length)) for length in LENGTHS]
                    lines.append(f'| Qwen2.5 {size}, `{method}` | {batch} | {" | ".join(cells)} |')
                    print(lines[-1], flush=True)
    return '\n'.join(lines)


def with_table(text: str, table: str) -> str:
    """Return the text of a page with `table` between its markers.

    Raises:
        ValueError: The page has no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'the page has no line `{BEGIN}` followed by `{END}`')
    return f'{before}{BEGIN}\n\n{table}\n\n{END}{after}'


def main() -> None:
    """Compute the table and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--print', action='store_true', help='print the table only')
    args = parser.parse_args()
    for page in PAGES:  # fails early if a page has no markers
        with_table(page.read_text('utf-8'), '')
    new_table = table()
    for page in () if args.print else PAGES:
        write_text(page, with_table(page.read_text('utf-8'), new_table))


if __name__ == '__main__':
    main()
