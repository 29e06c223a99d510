#!/usr/bin/env python
"""Write the table of docs/en/plan.md and docs/zh/plan.md: Qwen2.5 on 8 GB, by method, micro-batch and length.

    python tools/plan_table.py            count anew (some minutes) and write both pages
    python tools/plan_table.py --print    only print it

Peaks are counted as `xtune plan` counts them without a GPU, of the shapes in devices/qwen2_5.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

from xtune.utils.atomic import write_text

TOOLS = Path(__file__).resolve().parent
PAGES = [TOOLS.parent / 'docs' / language / 'plan.md' for language in ('en', 'zh')]
BEGIN, END = '<!-- table: tools/plan_table.py -->', '<!-- end of table -->'
CARD = 8
METHODS, BATCHES, LENGTHS = ('lora', 'qlora'), (1, 4, 8, 32), (64, 256, 1024)
KIND = dict(model_type='qwen2', architectures=['Qwen2ForCausalLM'], max_position_embeddings=32768)


def peak(folder: Path, method: str, batch: int, length: int) -> int:
    """Return the bytes of a run of the model in `folder`, with the context of CUDA."""
    from xtune.config.load import load
    from xtune.config.presets import find
    from xtune.config.wire import wire
    from xtune.planning.planner import CONTEXT, Planner

    options = {
        'base_model': str(folder),
        'max_length': length,
        'pack': False,
        'activation_checkpointing': 'all',
        'speed.compile': False,
        'schedule.batch_size': batch,
        'lora.r': 16,
    }
    job = wire(load(find(f'smollm2_135m_{method}_alpaca_e1'), options, check_types=True))
    return Planner(job).counted(job).peak + CONTEXT


def cell(found: int) -> str:
    """Return `found` bytes in GiB, in bold where the card has them."""
    from xtune.planning.planner import GIB, room

    text = f'{found / GIB:.1f}'
    return f'**{text}**' if found <= room(CARD) else text


def table() -> str:
    """Return the table in Markdown."""
    shapes = json.loads((TOOLS / 'devices' / 'qwen2_5.json').read_text('utf-8'))
    lines = ['| model, method | micro-batch | ' + ' | '.join(f'{length} tokens' for length in LENGTHS) + ' |']
    lines.append('|---|---|' + '---|' * len(LENGTHS))
    with tempfile.TemporaryDirectory() as place:
        for size, shape in shapes.items():
            folder = Path(place) / size
            folder.mkdir()
            (folder / 'config.json').write_text(json.dumps(KIND | shape), encoding='utf-8')
            for method in METHODS:
                for batch in BATCHES:
                    cells = [cell(peak(folder, method, batch, length)) for length in LENGTHS]
                    lines.append(f'| Qwen2.5 {size}, `{method}` | {batch} | {" | ".join(cells)} |')
                    print(lines[-1], flush=True)
    return '\n'.join(lines)


def with_table(text: str, made: str) -> str:
    """Return a page with the table `made` in its place.

    Raises:
        ValueError: It has no place for it.
    """
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f'the page has no lines `{BEGIN}` and, after it, `{END}`')
    return f'{before}{BEGIN}\n\n{made}\n\n{END}{after}'


def main() -> None:
    """Count, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--print', action='store_true', help='do not write the pages')
    args = parser.parse_args()
    for page in PAGES:  # for what it refuses, before minutes of counting
        with_table(page.read_text('utf-8'), '')
    made = table()
    for page in () if args.print else PAGES:
        write_text(page, with_table(page.read_text('utf-8'), made))


if __name__ == '__main__':
    main()
