"""Write the tables of docs/en/devices.md and docs/zh/devices.md between their marks; with --check only compare.

They come from xtune/parallel/compatibility.py (what goes together) and from the figures of `xtune plan --gpus` for the
presets of Llama 3 70B.
"""

import sys
from functools import cache
from pathlib import Path

from xtune.config.load import load
from xtune.config.presets import find
from xtune.config.wire import wire
from xtune.parallel.compatibility import METHODS, REFUSED, STRATEGIES
from xtune.planning.estimator import MemoryEstimator
from xtune.planning.sharding import ShardedSizes
from xtune.planning.strategies import Cluster, fsdp2_memory
from xtune.planning.units import GIB

PAGES = [Path(__file__).resolve().parents[1] / 'docs' / language / 'devices.md' for language in ('en', 'zh')]


MODEL, DATA = 'llama3_70b_chat', 'oasst1_e3'
# GPUs, and GB of each; at most eight are on a host.
MACHINES = [(2, 40), (4, 24), (8, 80), (16, 80)]


def compatibility() -> str:
    """Return the table of methods and strategies, and below it why some do not go together."""
    spread = [name for name in STRATEGIES if name != 'one_device']
    text = '| | ' + ' | '.join(f'`{name}`' for name in spread) + ' |\n' + '|---' * (len(spread) + 1) + '|\n'
    reasons: dict[str, list[tuple[str, str]]] = {}
    for method in METHODS:
        cells = []
        for strategy in spread:
            reason = REFUSED.get((method, strategy))
            cells.append('no' if reason else 'yes')
            if reason:
                reasons.setdefault(reason, []).append((method, strategy))
        text += f'| `{method}` | {" | ".join(cells)} |\n'
    lines = []
    for reason, pairs in reasons.items():
        methods = ', '.join(dict.fromkeys(f'`{method}`' for method, _ in pairs))
        strategies = ', '.join(dict.fromkeys(f'`{strategy}`' for _, strategy in pairs))
        lines.append(f'- {methods}, {strategies}: {reason}.\n')
    return text + '\n' + ''.join(lines)


def sharded_sizes(method: str) -> ShardedSizes:
    """Return the sizes of the preset of the 70B model with `method`."""
    path = find(f'{MODEL}_{method}_{DATA}')
    return MemoryEstimator(wire(load(path), path.stem).step).sharded_sizes()


@cache
def memory() -> str:
    """Return the table of a 70B model: GiB of each GPU (and of each host) by machine and method; in bold what fits."""
    methods = {method: sharded_sizes(method) for method in ('qlora', 'lora', 'full')}
    text = '| | ' + ' | '.join(f'`{method}`' for method in methods) + ' |\n|---|---|---|---|\n'
    for gpus, gb in MACHINES:
        for strategy in ('fsdp2', 'fsdp2_offload'):
            cells = []
            for sizes in methods.values():
                need = fsdp2_memory(strategy, sizes, Cluster(gpus, -(-gpus // 8)))
                device = f'{need.device / GIB:,.1f}'
                cells.append((f'**{device}**' if need.fits(gb) else device) + f' + {need.host / GIB:,.0f}')
            text += f'| {gpus} x {gb} GB, `{strategy}` | {" | ".join(cells)} |\n'
    return text


def with_tables(text: str) -> str:
    """Return a page with its tables replaced.

    Raises:
        ValueError: It has no marks for one of them.
    """
    for name, made in (('compatibility', compatibility()), ('memory', memory())):
        start, end = f'<!-- {name}: tools/devices_page.py -->', f'<!-- end of {name} -->'
        head, found, rest = text.partition(start)
        _, ended, tail = rest.partition(end)
        if not found or not ended:
            raise ValueError(f'the page has no lines `{start}` and `{end}`')
        text = f'{head}{start}\n\n{made}\n{end}{tail}'
    return text


if __name__ == '__main__':
    stale = [
        page for page in PAGES if page.read_text(encoding='utf-8') != with_tables(page.read_text(encoding='utf-8'))
    ]
    if '--check' in sys.argv:
        sys.exit(bool(stale))
    for page in stale:
        page.write_text(with_tables(page.read_text(encoding='utf-8')), encoding='utf-8')
